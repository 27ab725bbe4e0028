// Runs the tests of a library that is compiled for wasm32-unknown-unknown, in Node: cargo's runner for that target.
//
//     CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_RUNNER="node tests/wasm/libtest.mjs" cargo test --target wasm32-unknown-unknown --lib
//
// Such a program has neither arguments nor output. It returns when every test has passed and traps in the first that fails, whose name is in
// the trace. So names that have to be among the tests are asked for in GRADCLIP_WASM_TESTS, parted by commas, each behind its program's:
// `gradclip/cpu::lanes::tests::simd128`.
import { readFileSync } from "node:fs";
import { basename } from "node:path";

const bytes = readFileSync(process.argv[2]);
const compiled = new WebAssembly.Module(bytes);

// What wasm-bindgen would put there belongs to wgpu, which no test of a library calls.
const imports = {};
for (const { module, name, kind } of WebAssembly.Module.imports(compiled)) {
  if (kind !== "function") throw new Error(`the tests import ${module}.${name}, which is no function`);
  (imports[module] ??= {})[name] = () => {
    throw new Error(`a test calls ${name}, which only a browser has`);
  };
}

const text = bytes.toString("latin1");
const [program] = basename(process.argv[2]).split("-");
for (const asked of (process.env.GRADCLIP_WASM_TESTS ?? "").split(",").filter(Boolean)) {
  const [of, test] = asked.split("/");
  if (of === program && !text.includes(test)) throw new Error(`${test} is not among the tests of ${program}`);
}

const { exports } = new WebAssembly.Instance(compiled, imports);
const status = exports.main(0, 0);
if (status !== 0) throw new Error(`the tests ended with ${status}`);
console.log(`every test of ${process.argv[2]} passed`);
