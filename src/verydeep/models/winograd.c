/* Winograd's F(4x4, 3x3) on maps with channels last, a piece of a layer a call, for winograd_compiled.py.

   A tile is transformed in registers, which PyTorch's operations cannot do, and weights lie as the matmuls read them:
   in panels of 2 vectors of output channels. Each output is a sum over the input channels in their order, whatever the
   piece, the batch and the number of threads: results are equal to the bit. Vectors are an extension of GCC and Clang. */

#include <stddef.h>

#ifndef LANES
#ifdef __AVX512F__
#define LANES 16
#else
#define LANES 8
#endif
#endif
#ifdef __AVX512F__
#define ROWS 14 /* of a product at once: 2 vectors of sums each, which with the weights fill the registers */
#else
#define ROWS 6
#endif
#define PANEL (2 * LANES)
#define DEPTH 128
#define TILE 4
#define SIDE 6
#define PLACES 36

typedef float vector __attribute__((vector_size(4 * LANES), aligned(4), may_alias));
typedef int bits __attribute__((vector_size(4 * LANES)));
typedef ptrdiff_t size;
#define AT(pointer) (*(vector *)(pointer))
#define INLINE static inline __attribute__((always_inline))

typedef struct {
    const float *maps;    /* (B, height, width, channels) */
    const float *weights; /* (36, outputs / PANEL, channels, PANEL) */
    const float *bias;    /* (outputs), or NULL */
    float *out;           /* (B, height, width, outputs), half as high and wide if pooled; or its gradient */
    size height, width, channels, outputs;
    int relu, pooled;
} Layer;

typedef struct {
    size image, row, column;
} Tile;

int panel(void) { return PANEL; }

/* The tile of a number, counted row by row over all images. */
INLINE Tile tile(const Layer *layer, size number) {
    size rows = (layer->height + TILE - 1) / TILE, columns = (layer->width + TILE - 1) / TILE;
    return (Tile){number / (rows * columns), number / columns % rows, number % columns};
}

INLINE size pixel(const Layer *layer, size image, size y, size x) {
    return (image * layer->height + y) * layer->width + x;
}

/* NaN stays NaN in both. */
INLINE vector positive(vector x) { return (vector)((bits)x & ~(x < 0)); }
INLINE vector larger(vector x, vector y) {
    bits first = (x >= y) | (x != x);
    return (vector)(((bits)x & first) | ((bits)y & ~first));
}

/* t = B' d, for one column (or row) of a tile whose values are `step` apart. */
INLINE void transform_input(const vector *d, int step, vector *t) {
    vector even = d[4 * step] - 4 * d[2 * step], odd = d[3 * step] - 4 * d[step];
    vector far = d[4 * step] - d[2 * step], near = 2 * (d[3 * step] - d[step]);
    t[0] = 4 * d[0] - 5 * d[2 * step] + d[4 * step];
    t[step] = even + odd;
    t[2 * step] = even - odd;
    t[3 * step] = far + near;
    t[4 * step] = far - near;
    t[5 * step] = 4 * d[step] - 5 * d[3 * step] + d[5 * step];
}

/* y = A' m. */
INLINE void transform_output(const vector *m, int step, vector *y, int stride) {
    vector sum = m[step] + m[2 * step], difference = m[step] - m[2 * step];
    vector sum2 = m[3 * step] + m[4 * step], difference2 = m[3 * step] - m[4 * step];
    y[0] = m[0] + sum + sum2;
    y[stride] = difference + 2 * difference2;
    y[2 * stride] = sum + 4 * sum2;
    y[3 * stride] = difference + 8 * difference2 + m[5 * step];
}

/* u = G g. */
INLINE void transform_weight(const vector *g, int step, vector *u, int stride) {
    vector even = (g[0] + g[2 * step]) * (-1 / 6.f), odd = g[step] * (1 / 6.f);
    vector even2 = g[0] * (1 / 24.f) + g[2 * step] * (1 / 6.f), odd2 = g[step] * (1 / 12.f);
    u[0] = g[0] * (1 / 4.f);
    u[stride] = even - odd;
    u[2 * stride] = even + odd;
    u[3 * stride] = even2 + odd2;
    u[4 * stride] = even2 - odd2;
    u[5 * stride] = g[2 * step];
}

/* G g G' of weights (outputs, channels, 3, 3) into panels first to last of (36, outputs / PANEL, channels, PANEL). */
void transform_weights(const float *weights, size outputs, size channels, size first, size last, float *panels) {
    size place = outputs * channels;
    for (size k = first * PANEL; k < last * PANEL; k += LANES)
        for (size c = 0; c < channels; c++) {
            vector g[9], once[18], u[PLACES];
            for (int lane = 0; lane < LANES; lane++)
                for (int i = 0; i < 9; i++) g[i][lane] = weights[((k + lane) * channels + c) * 9 + i];
            for (int x = 0; x < 3; x++) transform_weight(g + x, 3, once + x, 3);
            for (int y = 0; y < SIDE; y++) transform_weight(once + 3 * y, 1, u + SIDE * y, 1);
            float *to = panels + (k / PANEL * channels + c) * PANEL + k % PANEL;
            for (int p = 0; p < PLACES; p++) AT(to + p * place) = u[p];
        }
}

/* B' d B of a tile's channels first to last: 36 rows of them, `place` apart. */
static void tile_in(const Layer *layer, Tile at, size first, size last, float *tile, size place) {
    const float *pixels[PLACES];
    for (int p = 0; p < PLACES; p++) {
        size y = TILE * at.row + p / SIDE - 1, x = TILE * at.column + p % SIDE - 1;
        int inside = y >= 0 && y < layer->height && x >= 0 && x < layer->width;
        pixels[p] = inside ? layer->maps + pixel(layer, at.image, y, x) * layer->channels : NULL;
    }
    for (size c = first; c < last; c += LANES) {
        vector d[PLACES], t[PLACES];
        for (int p = 0; p < PLACES; p++) d[p] = pixels[p] ? AT(pixels[p] + c) : (vector){0};
        for (int x = 0; x < SIDE; x++) transform_input(d + x, SIDE, t + x);
        for (int y = 0; y < SIDE; y++) transform_input(t + SIDE * y, 1, d + SIDE * y);
        for (int p = 0; p < PLACES; p++) AT(tile + p * place + c - first) = d[p];
    }
}

/* A' m A, bias, ReLU and pooling of a tile's products: output channels first to last. */
static void tile_out(const Layer *layer, Tile at, const float *products, size place, size first, size last) {
    int side = layer->pooled ? TILE / 2 : TILE;
    size height = layer->pooled ? layer->height / 2 : layer->height;
    size width = layer->pooled ? layer->width / 2 : layer->width;
    for (size k = first; k < last; k += LANES) {
        vector m[PLACES], once[TILE * SIDE], y[TILE * TILE];
        for (int p = 0; p < PLACES; p++) m[p] = AT(products + p * place + k - first);
        for (int x = 0; x < SIDE; x++) transform_output(m + x, SIDE, once + x, SIDE);
        for (int i = 0; i < TILE; i++) transform_output(once + SIDE * i, 1, y + TILE * i, 1);
        vector bias = layer->bias ? AT(layer->bias + k) : (vector){0};
        for (int i = 0; i < TILE * TILE; i++) {
            y[i] += bias;
            if (layer->relu) y[i] = positive(y[i]);
        }
        if (layer->pooled)
            for (int i = 0; i < side * side; i++) {
                const vector *four = y + i / 2 * 2 * TILE + i % 2 * 2;
                y[i] = larger(larger(four[0], four[1]), larger(four[TILE], four[TILE + 1]));
            }
        for (int i = 0; i < side * side; i++) {
            size row = side * at.row + i / side, column = side * at.column + i % side;
            if (row < height && column < width)
                AT(layer->out + ((at.image * height + row) * width + column) * layer->outputs + k) = y[i];
        }
    }
}

/* A product's rows and depth, and the strides of its factors: left[i * row + c * step], right[c * PANEL]. */
typedef struct {
    size count, depth, row, step;
} Shape;

/* Some rows of a product, into rows of m `stride` apart or added to them. */
INLINE void multiply_rows(int rows, Shape shape, const float *left, const float *right, float *m, size stride, int add) {
    vector sums[ROWS][2];
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) sums[i][0] = sums[i][1] = (vector){0};
    for (size c = 0; c < shape.depth; c++, left += shape.step, right += PANEL) {
        vector right0 = AT(right), right1 = AT(right + LANES);
#pragma GCC unroll 16
        for (int i = 0; i < rows; i++) {
            sums[i][0] += left[i * shape.row] * right0;
            sums[i][1] += left[i * shape.row] * right1;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < rows; i++) {
        if (add) sums[i][0] += AT(m + i * stride), sums[i][1] += AT(m + i * stride + LANES);
        AT(m + i * stride) = sums[i][0];
        AT(m + i * stride + LANES) = sums[i][1];
    }
}

/* (count, depth) times panels (panels, depth, PANEL), into (count, panels * PANEL) or added to it. Parts of the depth are
   summed apart, which halves the rounding error and keeps their weights in the first cache. */
INLINE void multiply(Shape shape, size panels, const float *left, const float *right, float *m, size stride, int add) {
    for (size panel = 0; panel < panels; panel++, m += PANEL)
        for (size c = 0; c < shape.depth; c += DEPTH) {
            Shape part = {shape.count, shape.depth - c < DEPTH ? shape.depth - c : DEPTH, shape.row, shape.step};
            const float *values = left + c * shape.step, *weights = right + (panel * shape.depth + c) * PANEL;
            size i = 0;
#define MULTIPLY(rows)                        \
    for (; i + rows <= part.count; i += rows) \
        multiply_rows(rows, part, values + i * part.row, weights, m + i * stride, stride, add || c);
            MULTIPLY(ROWS)
            MULTIPLY(4)
            MULTIPLY(2)
            MULTIPLY(1)
        }
}

/* Floats between the positions of tiles: a multiple of 4 KiB would put them into the same lines of a cache. */
INLINE size apart(size tiles, size channels) { return tiles * channels + PANEL; }

/* Floats that `convolve` needs to work in; so does `weight_gradient`, for channels + PANEL. */
size workspace(size tiles, size channels, size outputs) {
    return PLACES * (apart(tiles, channels) + apart(tiles, outputs));
}

/* Tiles first to last, of panels first_panel to last_panel. */
void convolve(const Layer *layer, size first, size last, size first_panel, size last_panel, float *work) {
    size channels = layer->channels, panels = last_panel - first_panel, outputs = panels * PANEL, count = last - first;
    size in = apart(count, channels), out = apart(count, outputs);
    float *products = work + PLACES * in;
    for (size t = 0; t < count; t++)
        tile_in(layer, tile(layer, first + t), 0, channels, work + t * channels, in);
    for (int p = 0; p < PLACES; p++) {
        const float *weights = layer->weights + (p * (layer->outputs / PANEL) + first_panel) * channels * PANEL;
        multiply((Shape){count, channels, channels, 1}, panels, work + p * in, weights, products + p * out, outputs, 0);
    }
    for (size t = 0; t < count; t++)
        tile_out(layer, tile(layer, first + t), products + t * outputs, out, first_panel * PANEL, last_panel * PANEL);
}

/* t = A y. */
INLINE void transform_gradient(const vector *y, int step, vector *t, int stride) {
    vector even = y[0] + y[2 * step], odd = y[step] + y[3 * step];
    vector even2 = y[0] + 4 * y[2 * step], odd2 = 2 * y[step] + 8 * y[3 * step];
    t[0] = y[0];
    t[stride] = even + odd;
    t[2 * stride] = even - odd;
    t[3 * stride] = even2 + odd2;
    t[4 * stride] = even2 - odd2;
    t[5 * stride] = y[3 * step];
}

/* A y A' of a tile of the output's gradient (B, height, width, outputs): a row of each panel of each position. */
static void tile_back(const Layer *layer, Tile at, float *tile, size panel, size place) {
    const float *pixels[TILE * TILE];
    for (int i = 0; i < TILE * TILE; i++) {
        size y = TILE * at.row + i / TILE, x = TILE * at.column + i % TILE;
        int inside = y < layer->height && x < layer->width;
        pixels[i] = inside ? layer->out + pixel(layer, at.image, y, x) * layer->outputs : NULL;
    }
    for (size k = 0; k < layer->outputs; k += LANES) {
        vector y[TILE * TILE], once[SIDE * TILE], t[PLACES];
        for (int i = 0; i < TILE * TILE; i++) y[i] = pixels[i] ? AT(pixels[i] + k) : (vector){0};
        for (int x = 0; x < TILE; x++) transform_gradient(y + x, TILE, once + x, TILE);
        for (int i = 0; i < SIDE; i++) transform_gradient(once + TILE * i, 1, t + SIDE * i, 1);
        for (int p = 0; p < PLACES; p++) AT(tile + p * place + k / PANEL * panel + k % PANEL) = t[p];
    }
}

/* Adds what tiles first to last give to the gradient (36, channels, outputs) of the transformed weights, for the input
   channels first_channel to last_channel. The output's gradient is in `out`. */
void weight_gradient(const Layer *layer, size first, size last, size first_channel, size last_channel, float *work,
                     float *sums) {
    size channels = last_channel - first_channel, outputs = layer->outputs, count = last - first;
    size row = channels + PANEL, in = apart(count, row), back = apart(count, outputs);
    float *gradients = work + PLACES * in;
    for (size t = 0; t < count; t++) {
        tile_in(layer, tile(layer, first + t), first_channel, last_channel, work + t * row, in);
        tile_back(layer, tile(layer, first + t), gradients + t * PANEL, count * PANEL, back);
    }
    for (int p = 0; p < PLACES; p++)
        multiply((Shape){channels, count, 1, row}, outputs / PANEL, work + p * in, gradients + p * back,
                 sums + (p * layer->channels + first_channel) * outputs, outputs, 1);
}
