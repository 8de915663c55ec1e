// ONNX Runtime Web (WebAssembly) on the jobs of exports.py: node exports_web.cjs NODE_PACKAGES JOBS; prints the outputs as JSON.
const fs = require("fs");
const path = require("path");

const [packages, jobs] = process.argv.slice(2);
const ort = require(path.join(packages, "onnxruntime-web"));
ort.env.wasm.numThreads = 1;
const ARRAYS = { uint8: Uint8Array, float32: Float32Array };

let open = { file: "", session: null }; // of the last job: many photos go through one net

async function opened(file) {
  if (open.file !== file) {
    if (open.session) await open.session.release();
    open = { file: "", session: null };
    const session = await ort.InferenceSession.create(fs.readFileSync(file), { executionProviders: ["wasm"] });
    open = { file, session };
  }
  return open.session;
}

async function output(job) {
  try {
    const session = await opened(job.file);
    const raw = fs.readFileSync(job.raw);
    const values = new ARRAYS[job.type](raw.buffer.slice(raw.byteOffset, raw.byteOffset + raw.byteLength));
    const answers = await session.run({ [job.input]: new ort.Tensor(job.type, values, job.dims) });
    return Array.from(answers[session.outputNames[0]].data);
  } catch (fault) {
    return String(fault).slice(0, 200);
  }
}

(async () => {
  const outputs = [];
  for (const job of JSON.parse(fs.readFileSync(jobs))) outputs.push(await output(job));
  fs.writeSync(1, JSON.stringify(outputs));
})();
