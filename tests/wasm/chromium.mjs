// The library in Chromium's WebGPU, on SwiftShader: every check of gradclip-verify/examples/browser.rs, on a page of its own.
//
//     node tests/wasm/chromium.mjs FOLDER [CHECK...]
//
// FOLDER has what `wasm-bindgen --target web --out-name browser` makes of that example, and PLAYWRIGHT names the folder of playwright-core's
// package. Without names every check runs. The last line of a good run is `N passed, 0 failed`.
import { createServer } from "node:http";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createRequire } from "node:module";

const [folder, ...asked] = process.argv.slice(2);
const { chromium } = createRequire(import.meta.url)(process.env.PLAYWRIGHT ?? "playwright-core");

const types = { ".js": "text/javascript", ".wasm": "application/wasm" };
const server = createServer(async (request, response) => {
  const path = new URL(request.url, "http://localhost").pathname;
  if (path === "/favicon.ico") return response.writeHead(204).end();
  if (path === "/") return response.setHeader("content-type", "text/html").end("<!doctype html><title>gradclip</title>");
  try {
    const bytes = await readFile(join(folder, path.slice(1).replaceAll("..", "")));
    response.setHeader("content-type", types[path.slice(path.lastIndexOf("."))] ?? "text/plain").end(bytes);
  } catch {
    response.writeHead(404).end();
  }
});
await new Promise((ready) => server.listen(0, "127.0.0.1", ready));

// What a check has the browser refuse, in the page, for as long as it runs.
const broken = {
  // A shader that is no WGSL.
  shader: () => {
    const { createShaderModule } = GPUDevice.prototype;
    GPUDevice.prototype.createShaderModule = function (descriptor) {
      return createShaderModule.call(this, { ...descriptor, code: `${descriptor.code}\n}` });
    };
    return () => (GPUDevice.prototype.createShaderModule = createShaderModule);
  },
  // A pipeline that was not made for a reason that is no error of validation, as where a driver's compiler fails.
  pipeline: () => {
    const { createComputePipeline } = GPUDevice.prototype;
    GPUDevice.prototype.createComputePipeline = function (descriptor) {
      this.pushErrorScope("validation");
      const compute = { ...descriptor.compute, entryPoint: "nothing" };
      const made = createComputePipeline.call(this, { ...descriptor, compute });
      this.popErrorScope();
      return made;
    };
    return () => (GPUDevice.prototype.createComputePipeline = createComputePipeline);
  },
};

// Name, function, arguments, what is broken meanwhile, what the answer has to hold.
const checks = [
  ["open", "open", [], null, /^browser-?webgpu/i],
  ["clip", "clip", [], null, /reports of steps 1,2|reports of steps \[1, 2\]/],
  ["shaders", "shaders", [], null, /^[1-9][0-9]{2,}$/],
  ["refused_buffer", "refused_buffer", [], null, /^preparing buffers and bind groups: /],
  ["refused_shader", "prepared_anew", [], "shader", /^compiling a shader: /],
  ["refused_pipeline", "prepared_anew", [], "pipeline", /^compiling a shader: /],
  ["saved", "saved", [], null, /after 3 updates$/],
  ["golden_on_cpu", "golden_on_cpu", [], null, /^[0-9a-f]{16} [0-9a-f]{16}$/],
  ["golden_on_adapter", "golden_on_adapter", [], null, /^[0-9a-f]{16}$/],
  ["verify", "verify", [Number(process.env.GRADCLIP_ONE_IN ?? 40)], null, /checks, [1-9][0-9]* values$/],
];

const profile = await mkdtemp(join(tmpdir(), "gradclip-chromium-"));
const context = await chromium.launchPersistentContext(profile, {
  executablePath: process.env.CHROMIUM ?? "/usr/bin/chromium",
  headless: true,
  args: [
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-unsafe-webgpu",
    "--use-webgpu-adapter=swiftshader",
  ],
});
let passed = 0;
let failed = 0;
try {
  const page = await context.newPage();
  const errors = [];
  page.on("pageerror", (error) => errors.push(String(error)));
  page.on("console", (message) => message.type() === "error" && errors.push(message.text()));
  await page.goto(`http://127.0.0.1:${server.address().port}/`);
  await page.evaluate(async () => {
    const module = await import("/browser.js");
    await module.default();
    globalThis.module = module;
  });
  for (const [name, call, given, what, answer] of checks) {
    if (asked.length && name !== "open" && !asked.includes(name)) continue;
    const begun = Date.now();
    const script = `(async () => {
      const mend = (${what ? broken[what] : "() => () => {}"})();
      try {
        return { said: String(await module.${call}(...${JSON.stringify(given)})) };
      } catch (error) {
        return { threw: String(error) };
      } finally {
        mend();
      }
    })()`;
    const { said, threw } = await page.evaluate(script);
    const right = said !== undefined && answer.test(said) && errors.length === 0;
    right ? passed++ : failed++;
    const seconds = ((Date.now() - begun) / 1000).toFixed(1);
    console.log(`${right ? "ok  " : "FAIL"} ${name} (${seconds} s): ${said ?? threw}`.slice(0, 400));
    errors.splice(0).forEach((error) => console.log(`     on the console: ${error.slice(0, 400)}`));
  }
} finally {
  await context.close();
  server.close();
  await rm(profile, { recursive: true, force: true });
}
console.log(`${passed} passed, ${failed} failed`);
process.exitCode = failed || !passed ? 1 : 0;
