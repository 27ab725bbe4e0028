// 16 bytes: four columns of f32.
alias Row = vec4<u32>;
