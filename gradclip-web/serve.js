// Serves dist/ on localhost, to which browsers give WebGPU without a certificate: node serve.js PORT, 0 for any.

import { createReadStream, statSync } from 'node:fs';
import { createServer } from 'node:http';
import { extname, join, normalize } from 'node:path';
import { fileURLToPath } from 'node:url';

const ROOT = fileURLToPath(new URL('dist/', import.meta.url));
const TYPES = {
    '.html': 'text/html; charset=utf-8',
    '.js': 'text/javascript',
    '.css': 'text/css',
    '.wasm': 'application/wasm',
    '.txt': 'text/plain; charset=utf-8',
    '.svg': 'image/svg+xml',
};

export function serve(port) {
    const server = createServer((request, response) => {
        const path = normalize(decodeURIComponent(new URL(request.url, 'http://localhost').pathname));
        const file = join(ROOT, path.endsWith('/') ? `${path}index.html` : path);
        const found = file.startsWith(ROOT) && statSync(file, { throwIfNoEntry: false })?.isFile();
        if (!found) {
            response.writeHead(404).end('there is no such file');
            return;
        }
        response.writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream', 'cache-control': 'no-cache' });
        createReadStream(file).pipe(response);
    });
    return new Promise((resolve, reject) => {
        server.on('error', reject).listen(port, '127.0.0.1', () => resolve(server));
    });
}

if (process.argv[1] === fileURLToPath(import.meta.url)) {
    const server = await serve(Number(process.argv[2] ?? 8080));
    console.log(`http://localhost:${server.address().port}/`);
}
