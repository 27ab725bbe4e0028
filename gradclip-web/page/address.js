// The state of the controls in the address, so that a link shows the same run. It stands behind the #, which browsers do
// not send to the server.

export class Address {
    constructor() {
        this.values = new URLSearchParams(location.hash.slice(1));
    }

    get(name) {
        return this.values.get(name);
    }

    // Names with values; null takes one away.
    set(values) {
        for (const [name, value] of Object.entries(values)) {
            if (value === null) this.values.delete(name);
            else this.values.set(name, value);
        }
        history.replaceState(null, '', `#${this.values}`);
    }
}

async function through(bytes, stream) {
    return new Uint8Array(await new Response(new Blob([bytes]).stream().pipeThrough(stream)).arrayBuffer());
}

// A text in few characters that an address may have.
export async function packed(text) {
    const bytes = await through(new TextEncoder().encode(text), new CompressionStream('deflate-raw'));
    const letters = Array.from(bytes, (byte) => String.fromCharCode(byte)).join('');
    return btoa(letters).replaceAll('+', '-').replaceAll('/', '_').replaceAll('=', '');
}

// The text again; null for what is none.
export async function unpacked(letters) {
    try {
        const bytes = Uint8Array.from(atob(letters.replaceAll('-', '+').replaceAll('_', '/')), (c) => c.charCodeAt(0));
        return new TextDecoder('utf-8', { fatal: true }).decode(await through(bytes, new DecompressionStream('deflate-raw')));
    } catch {
        return null;
    }
}
