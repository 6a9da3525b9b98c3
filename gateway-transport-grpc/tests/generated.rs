//! What is generated is what the files in `proto/` say. `UPDATE_GENERATED=1` writes it anew.

use std::fs;
use std::path::Path;

use prost::Message;

/// Each file, and how the generator names what has no package.
const FILES: [(&str, &str); 3] =
    [("cy_llm", "cy.llm.rs"), ("ai_inference", "_.rs"), ("runner_gateway", "inference_gateway.runner.v1.rs")];

#[test]
fn the_generated_code_is_up_to_date() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    for (name, generated_as) in FILES {
        let set = protox::compile([format!("{name}.proto")], [root.join("proto")]).expect("a valid file");
        // Where a comment stood is of no use to reflection.
        let mut bare = set.clone();
        for file in &mut bare.file {
            file.source_code_info = None;
        }
        let out = tempfile::tempdir().expect("a directory");
        tonic_prost_build::configure()
            .build_transport(false)
            // Bodies are passed on without being copied.
            .bytes(".")
            .out_dir(out.path())
            .compile_fds(set)
            .expect("code for a valid file");
        let code = fs::read(out.path().join(generated_as)).expect("the generated code");
        check(&root.join(format!("src/proto/generated/{name}.rs")), &code);
        check(&root.join(format!("src/proto/generated/{name}.bin")), &bare.encode_to_vec());
    }
}

fn check(path: &Path, wanted: &[u8]) {
    if std::env::var_os("UPDATE_GENERATED").is_some() {
        fs::write(path, wanted).expect("a file that can be written");
    }
    let there = fs::read(path).unwrap_or_default();
    assert!(there == wanted, "{} is stale: run this test with UPDATE_GENERATED=1", path.display());
}
