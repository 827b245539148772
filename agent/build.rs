//! Hands `cold.ld` to the linker of an agent that is meant for nodes.

use std::env;
use std::path::Path;

fn main() {
    println!("cargo::rerun-if-changed=cold.ld");
    let folder = env::var_os("CARGO_MANIFEST_DIR").expect("cargo sets it for a build script");
    let script = Path::new(&folder).join("cold.ld");
    // Whoever works on it may have a linker that takes no scripts.
    if env::var("PROFILE").is_ok_and(|profile| profile == "release") {
        println!("cargo::rustc-link-arg-bins=-T");
        println!("cargo::rustc-link-arg-bins={}", script.display());
    }
}
