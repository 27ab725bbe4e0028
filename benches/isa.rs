#![allow(missing_docs)]
#[path = "isa/translate.rs"]
mod translate;
#[path = "isa/vulkan.rs"]
mod vulkan;

fn main() -> Result<(), String> {
    let c = vulkan::Compiler::open()?;
    println!("{} {}", c.name, c.driver);
    for s in gradclip::listing::shaders(256, &[1]) {
        if Some(s.kernel) == std::env::args().nth(1).as_deref() && s.norm == std::env::args().nth(2).unwrap_or_default() {
            let p = translate::Parsed::new(&s.wgsl, s.entry)?;
            p.msl(&s.groups)?;
            p.hlsl(&s.groups)?;
            p.glsl(&s.groups)?;
            let t = std::time::Instant::now();
            let k = c.compile(&p.spirv(&s.groups, &c)?, s.entry, &s.groups)?;
            println!("{:?} {} {:?}\n{:?}", s.dtype, s.apart, t.elapsed(), k.statistics);
            std::fs::write(format!("/tmp/isa_{}_{}_{:?}.s", s.kernel, s.norm, s.dtype), k.listing).unwrap();
        }
    }
    Ok(())
}
