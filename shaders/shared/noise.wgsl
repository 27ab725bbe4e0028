// Gaussian noise keyed by the program: of each purpose, thing and place other bits. src/cpu/noise.rs is the twin.

// The keys of one thing's noise follow from the program's seed, so that those of neighbouring seeds have nothing in common.
struct NoiseKeys {
    first: vec2<u32>,
    second: vec2<u32>,
}

fn noise_keys(seed: vec2<u32>, thing: u32, purpose: u32) -> NoiseKeys {
    let number = 2u * purpose;
    return NoiseKeys(threefry(vec2(thing, number), seed), threefry(vec2(thing, number + 1u), seed));
}

fn noise_at(keys: NoiseKeys, place: u32, time: u32) -> Normal {
    let counter = vec2(place, time);
    let first = threefry(counter, keys.first);
    let second = threefry(counter, keys.second);
    return normal(U64(first.x, first.y), U64(second.x, second.y));
}
