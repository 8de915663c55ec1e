"""Good files of every kind that is read from strangers: what the fuzzing changes."""

from __future__ import annotations

import io
import json
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
from mutators import Files
from own_corpus import files_of
from PIL import Image
from safetensors.torch import save as save_torch

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS), str(TESTS / "checkpoints")]

from test_pretrained import FORMATS, jcjohnson, random_layers  # noqa: E402

from conftest import make_imagenet, make_voc  # noqa: E402
from verydeep.checkpoints.load import pretrained_checkpoint  # noqa: E402
from verydeep.checkpoints.preprocessing import KNOWN  # noqa: E402
from verydeep.checkpoints.pretrained import Weights, read_weights  # noqa: E402
from verydeep.checkpoints.sidecar import write_sidecar  # noqa: E402
from verydeep.core.settings import DataSettings  # noqa: E402
from verydeep.data.pack_writer import Packing, pack_data  # noqa: E402
from verydeep.deploy.export import export  # noqa: E402
from weight_files import Layers, slim_second, tfjs  # noqa: E402

KINDS = {
    "Caffe": ("Caffe, version 1", "Caffe, version 2"),
    "MatConvNet": ("MatConvNet", "MatConvNet, old"),
    "Keras": ("Keras 1", "Keras 3", ".keras"),
    "TF-Slim": ("TF-Slim",),
    "torch": ("torchvision", "torchvision, normalised", "mmpretrain"),
}
ENDINGS = {"Caffe": ".caffemodel", "MatConvNet": ".mat", "Keras": ".h5", "TF-Slim": ".ckpt", "torch": ".pth"}


def images() -> list[Files]:
    """Photos of all formats, modes and ways of packing."""
    pixels = np.random.default_rng(0).integers(0, 256, (24, 32, 4), dtype=np.uint8)
    rgb, rgba = Image.fromarray(pixels[:, :, :3]), Image.fromarray(pixels)
    exif = Image.Exif()
    exif[0x0112] = 6
    grey16 = Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257)
    ways: list[tuple[Any, str, dict[str, Any]]] = [
        *((rgb, kind, {}) for kind in ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM")),
        (rgb, "JPEG", {"progressive": True, "exif": exif}),
        *((rgb.convert(mode), "JPEG", {}) for mode in ("CMYK", "L")),
        *((rgba.convert(mode), "PNG", {}) for mode in ("RGBA", "LA", "P", "1")),
        (grey16, "PNG", {}),
        (rgb, "GIF", {"save_all": True, "append_images": [rgb.rotate(90)]}),
        (rgba, "WEBP", {"lossless": True, "exif": exif}),
        *((rgb, "TIFF", {"compression": name}) for name in ("tiff_lzw", "tiff_deflate", "jpeg", "packbits")),
        (grey16, "TIFF", {}),
        (rgb.convert("1"), "TIFF", {"compression": "group4"}),
        *((rgb.convert(mode), "TIFF", {}) for mode in ("LAB", "YCbCr", "CMYK")),
        *((rgb.convert(mode), "BMP", {}) for mode in ("P", "1")),
        *((rgb.convert(mode), "PPM", {}) for mode in ("1", "L")),
        (rgb, "MPO", {"save_all": True, "append_images": [rgb]}),
    ]
    found: list[Files] = []
    for image, kind, how in ways:
        file = io.BytesIO()
        image.save(file, kind, **how)
        found.append({f"x.{kind.lower()}": file.getvalue()})
    return found


def lists() -> list[Files]:
    """List files of photos, without and with sets."""
    rows = b"path,label\n" + b"".join(b"%d.jpg,%d\n" % (number, number % 2) for number in range(40))
    names = (b"train", b"train", b"val", b"test")
    sets = b"".join(b'"a/%d.jpg",%d,%s\n' % (number, number % 3, names[number % 4]) for number in range(40))
    return [{"x.csv": rows}, {"x.csv": sets}]


def json_lists() -> list[Files]:
    """The same as lines of JSON."""
    rows = [{"path": f"{number}.jpg", "label": str(number % 2)} for number in range(40)]
    sets = [{**row, "set": ("train", "val")[number % 5 == 0]} for number, row in enumerate(rows)]
    return [{"x.jsonl": b"\n".join(json.dumps(row).encode() for row in told)} for told in (rows, sets)]


def xml() -> list[Files]:
    """Annotations of two photos."""
    one = (
        b"<annotation><size><width>32</width><height>24</height></size><object><name>a</name><bndbox><xmin>1</xmin>"
        b"<ymin>2</ymin><xmax>10</xmax><ymax>12</ymax></bndbox></object></annotation>"
    )
    two = b'<?xml version="1.0" encoding="utf-8"?>\n' + one.replace(b"<object>", b"<object><part/><!-- x -->\n")
    return [{"x.xml": one}, {"x.xml": two, "y.xml": one}]


def coco() -> list[Files]:
    """Boxes as COCO keeps them."""
    told = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 32, "height": 24}],
        "categories": [{"id": 3, "name": "a"}],
        "annotations": [
            {"image_id": 1, "category_id": 3, "bbox": [1, 2, 5, 6]},
            {"image_id": 1, "category_id": 3, "bbox": [1.5, 2, 5, 6], "iscrowd": 1},
        ],
    }
    return [{"x.json": json.dumps(told).encode()}]


def boxes() -> list[Files]:
    """Rows of boxes."""
    rows = b"image,xmin,ymin,xmax,ymax,class\na.jpg,1,2,10,12,a\nb.jpg,1,2,10,12,b\n"
    return [{"x.csv": rows}, {"x.csv": b'"b c.jpg",1.5,2,10,12,"b, c"\r\na\\b.jpg,1,2,10,12,d\r\n'}]


def yolo() -> list[Files]:
    """Label files of two images, with both lists of names."""
    labels = {"labels/train/a.txt": b"0 .5 .5 .2 .3\n1 0.25 .5 .1 .1 .9\n", "labels/train/b.txt": b""}
    names = (b"names: [ant, bee]\n", b"path: .\nnc: 2\nnames:\n  0: ant\n  1: 'a bee'\n")
    return [
        *({"data.yaml": text, **labels} for text in names),
        {"classes.txt": b"ant\nbee\n", "a.txt": b"1 .5 .5 .2 .3\n0 .1 .1 .2 .1 .2 .2\n"},
    ]


def via() -> list[Files]:
    """Annotations of VIA 2 and of a project, of VIA 1, a project of VIA 3, and a table."""
    shape: dict[str, Any] = {"name": "rect", "x": 1, "y": 2, "width": 10, "height": 12}
    polygon = {"name": "polygon", "all_points_x": [1, 2], "all_points_y": [1, 2]}
    regions = [
        {"shape_attributes": shape, "region_attributes": {"class": "ant"}},
        {"shape_attributes": shape, "region_attributes": {"class": {"bee": True, "cat": False}}},
        {"shape_attributes": polygon, "region_attributes": {"class": "ant"}},
    ]
    second = {"a.jpg5": {"filename": "a.jpg", "size": 5, "regions": regions, "file_attributes": {}}}
    first = {"a.jpg5": {**second["a.jpg5"], "regions": {str(at): region for at, region in enumerate(regions)}}}
    cells = [json.dumps(value).replace('"', '""') for value in (shape, {"class": "ant"})]
    heads = "filename,file_size,file_attributes,region_count,region_id,region_shape_attributes,region_attributes"
    rows = f'{heads}\na.jpg,5,"{{}}",1,0,"{cells[0]}","{cells[1]}"\nb.jpg,5,"{{}}",0,0,"{{}}","{{}}"\n'
    of_3 = {"vid": "1", "flg": 0, "z": [], "av": {"1": "0"}}
    third = {
        "attribute": {"1": {"aname": "class", "type": 4, "options": {"0": "ant", "1": "bee"}}},
        "file": {"1": {"fid": 1, "fname": "a.jpg", "type": 2, "loc": 1, "src": ""}},
        "view": {"1": {"fid_list": [1]}},
        "metadata": {"1_a": {**of_3, "xy": [2, 1, 2, 10, 12]}, "1_b": {**of_3, "xy": [7, 1, 2, 3, 4, 5, 6]}},
    }
    told = (second, {"_via_settings": {}, "_via_img_metadata": second}, first, third)
    return [*({"x.json": json.dumps(content).encode()} for content in told), {"x.csv": rows.encode()}]


def http() -> list[Files]:
    """Requests with photos in several formats, by length and in chunks, and without a body."""
    photos = [data for files in images()[:4] for data in files.values()]
    paths = (b"/predict?top=2", b"/explain?class=ant&kind=gradcam&form=png", b"/localise", b"/describe")
    head = b"POST %s HTTP/1.1\r\nHost: localhost\r\n"
    found = [
        head % path + b"Content-Type: image/png\r\nContent-Length: %d\r\n\r\n" % len(data) + data
        for path, data in zip(paths, photos, strict=True)
    ]
    chunks = b"%x;a=b\r\n%s\r\n0\r\nX: y\r\n\r\n" % (len(photos[0]), photos[0])
    found.append(head % b"/similar?top=3" + b"Transfer-Encoding: chunked\r\n\r\n" + chunks)
    more = b"Host: 127.0.0.1:80\r\nRange: bytes=0-9\r\nOrigin: null\r\nAccept: */*\r\n\r\n"
    gets = (b"GET /photos/0", b"HEAD /page.js", b"GET /info", b"GET http://localhost/health", b"GET /openapi.json")
    found += [get + b" HTTP/1.1\r\n" + more + gets[2] + b" HTTP/1.0\r\nHost: localhost\r\n\r\n" for get in gets]
    return [{"x.http": data} for data in found]


def weights(place: Path) -> dict[str, list[Files]]:
    """Weight files of each layout, of a net D of few channels."""
    found: dict[str, list[Files]] = {}
    layers, path = random_layers("D"), place / "weights"
    for kind, ways in KINDS.items():
        for way in ways:
            FORMATS[way][0](path, layers)
            ending = way if way.startswith(".") else ENDINGS[kind]
            found.setdefault(kind, []).append({f"x{ending}": path.read_bytes()})
    jcjohnson(path, layers)
    found["torch"].append({"x.old": path.read_bytes()})
    found["TensorFlow.js"] = [
        _tfjs(place / f"tfjs-{store}", layers, store) for store in ("float32", "float16", "uint8")
    ]
    slim_second(place / "x", layers)
    found["TF-Slim"].append({name: (place / name).read_bytes() for name in ("x.index", "x.data-00000-of-00001")})
    FORMATS["timm"][0](place / "timm", layers)
    taken = read_weights(str(place / "timm"), "torchvision")
    told = {"net": taken.net, "channel_order": "RGB", "mean_rgb": "1,2,3", "input_range": "0-255"}
    found["safetensors"] = [{"net.safetensors": save_torch(taken.tensors, metadata=told)}]
    found["sidecar"] = [_with_card(place, found["torch"][0]["x.pth"], taken)]
    return found


def _tfjs(folder: Path, layers: Layers, store: str) -> Files:
    folder.mkdir()
    tfjs(folder / "model.json", layers, store, group=100, shard=100_000)
    return files_of(folder, ("",))


def _with_card(place: Path, data: bytes, taken: Weights) -> Files:
    """A foreign file and our card beside it."""
    path = place / "x.pth"
    path.write_bytes(data)
    metadata = pretrained_checkpoint(taken, tuple(map(str, range(len(taken.tensors["fc8.bias"]))))).metadata
    beside = write_sidecar(path, "torchvision", KNOWN["torchvision"], metadata)
    return {path.name: data, beside.name: beside.read_bytes()}


def onnx(run: Path, place: Path) -> list[Files]:
    """The run exported, for photos and for pixels."""
    found: list[Files] = []
    for takes in ("uint8", "float"):
        path = place / f"{takes}.onnx"
        export(run, "onnx", path, takes)
        found.append({"x.onnx": path.read_bytes()})
    return found


def devkit(place: Path) -> list[Files]:
    """ILSVRC's validation photos and the devkit with ``meta.mat``."""
    from scipy.io import savemat

    make_imagenet(place / "devkit")
    meta = place / "devkit" / "ILSVRC2012_devkit_t12" / "data" / "meta.mat"
    plain = meta.read_bytes()
    from scipy.io import loadmat

    savemat(meta, {"synsets": loadmat(meta)["synsets"]}, do_compression=True)
    still = {f"val/{number}.jpg": b"" for number in range(4)}
    truth = meta.with_name("ILSVRC2012_validation_ground_truth.txt").read_bytes()
    return [
        {"meta.mat": data, "ILSVRC2012_validation_ground_truth.txt": truth, **still}
        for data in (plain, meta.read_bytes())
    ]


def imagenet() -> list[Files]:
    """The text files of ILSVRC, in both layouts."""
    still: Files = {f"val/v_{number}.jpg": b"" for number in range(4)}
    wnids = ("n01440764", "n01443537", "n02084071")
    words = "".join(f"{wnid} thing {number}\n" for number, wnid in enumerate(wnids)).encode()
    ids = "".join(f"{wnid} {number} thing\n" for number, wnid in enumerate(wnids, 1)).encode()
    solution = "ImageId,PredictionString\n" + "".join(
        f"v_{number},{wnids[number % 3]} 1 2 3 4\n" for number in range(4)
    )
    one = {"map_clsloc.txt": ids, "ILSVRC2012_validation_ground_truth.txt": b"2\n1\n3\n1\n", "synset_words.txt": words}
    two = {"LOC_val_solution.csv": solution.encode(), "LOC_synset_mapping.txt": words}
    return [{**told, "ILSVRC2014_clsloc_validation_blacklist.txt": b"1\n3\n", **still} for told in (one, two)]


def voc(place: Path) -> list[Files]:
    """VOC-2007's lists."""
    make_voc(place / "voc", "2007")
    return [files_of(place / "voc", (".txt",))]


def tars() -> list[Files]:
    """A tar file of photos and classes, and the classes' names."""
    found = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        out = io.BytesIO()
        long = "a/" * 70 if form != tarfile.USTAR_FORMAT else ""
        with tarfile.open(fileobj=out, mode="w", format=form) as file:
            for number in range(12):
                picture = io.BytesIO()
                Image.new("RGB", (8, 8), (number, 0, 0)).save(picture, "PNG")
                for ending, data in (("png", picture.getvalue()), ("cls", b"%d" % (number % 2))):
                    told = tarfile.TarInfo(f"{long}{number}.{ending}")
                    told.size = len(data)
                    file.addfile(told, io.BytesIO(data))
        found.append({"x.tar": out.getvalue(), "classes.txt": b"one\ntwo\n"})
    return found


def hugging_face() -> list[Files]:
    """Data sets of Hugging Face: parquet files of two sets, and what `save_to_disk` writes, with lists of classes."""
    import pyarrow.parquet

    pictures = []
    for number in range(12):
        picture = io.BytesIO()
        Image.new("RGB", (8, 8), (number, 0, 0)).save(picture, "PNG")
        pictures.append({"bytes": picture.getvalue(), "path": f"{number}.png"})
    kind: dict[str, Any] = {"names": ["ant", "bee"], "_type": "ClassLabel"}
    lists = {"feature": kind, "_type": "List"}
    found: list[Files] = []
    for labels, feature in (([n % 2 for n in range(12)], kind), ([[0, 1][: n % 3] for n in range(12)], lists)):
        described = {"info": {"features": {"image": {"_type": "Image"}, "label": feature}}}
        table = pyarrow.table({"image": pictures, "label": labels, "animal": [f"a{n // 3}" for n in range(12)]})
        table = table.replace_schema_metadata({"huggingface": json.dumps(described)})
        parts = [io.BytesIO(), io.BytesIO()]
        pyarrow.parquet.write_table(
            table, parts[0], row_group_size=5, compression="none" if feature is kind else "snappy"
        )
        with pyarrow.ipc.new_stream(parts[1], table.schema) as stream:
            stream.write_table(table, 5)
        parquet, arrow = (part.getvalue() for part in parts)
        state = json.dumps({"_data_files": [{"filename": "d.arrow"}]}).encode()
        found += [
            {"data/train-00000-of-00001.parquet": parquet, "data/test-00000-of-00001.parquet": parquet},
            {"dataset_info.json": b"{}", "state.json": state, "d.arrow": arrow},
        ]
    sets = {f"{name}/{file}": data for name in ("train", "test") for file, data in found[-1].items()}
    return [*found, {"dataset_dict.json": b'{"splits": ["train", "test"]}', **sets}]


def pack(place: Path) -> list[Files]:
    """Packs of photos, raw and as JPEGs."""
    photos = place / "to pack"
    for number in range(12):
        (photos / "ab"[number % 2]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 36), (number, 0, 0)).save(photos / "ab"[number % 2] / f"{number}.png")
    found = []
    for form in ("raw", "jpeg"):
        pack_data(DataSettings(str(photos)), place / form, Packing(8, form))
        found.append(files_of(place / form, ("",)))
    return found
