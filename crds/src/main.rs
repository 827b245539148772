//! Writes the CRDs' YAML beside this crate's `Cargo.toml`.

use std::path::Path;

fn main() -> std::io::Result<()> {
    for (name, yaml) in edict_crds::manifests() {
        std::fs::write(Path::new(env!("CARGO_MANIFEST_DIR")).join(name), yaml)?;
    }
    Ok(())
}
