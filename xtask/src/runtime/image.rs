//! An image layout (OCI image specification 1.0) with one layer, busybox, under two names.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use super::program;
use crate::shell;

/// What sandboxes and containers are made of, and what they run. A sandbox runs something only to
/// keep its namespaces; runtimes kill it (`stopSandboxContainer` in containerd 1.7.24 and 2.1.9).
const NAMES: [(&str, &str); 2] = [
    ("localhost/pause:1", r#"["/bin/sleep","2147483647"]"#),
    ("localhost/busybox:1", r#"["/bin/sh"]"#),
];

/// Makes the image's tar archive at `file` from busybox in `packages`, working in `scratch`.
pub(super) fn make(packages: &Path, scratch: &Path, file: &Path) -> Result<()> {
    let (root, layout) = (scratch.join("root"), scratch.join("layout"));
    furnish(packages, &root)?;
    let blobs = layout.join("blobs/sha256");
    create(&blobs)?;
    let layer = scratch.join("layer");
    archive(&root, &layer)?;
    let layer = put(&blobs, &fs::read(&layer).context("read the layer")?)?;
    let mut manifests = Vec::new();
    for (name, entrypoint) in NAMES {
        let config = put(&blobs, config(entrypoint, &layer.digest).as_bytes())?;
        let manifest = put(&blobs, manifest(&config, &layer).as_bytes())?;
        manifests.push(entry(name, &manifest));
    }
    let index = format!(r#"{{"schemaVersion":2,"manifests":[{}]}}"#, manifests.join(","));
    write(&layout.join("index.json"), index.as_bytes())?;
    write(&layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    archive(&layout, file)
}

/// The file system: busybox under the name of everything that it can.
fn furnish(packages: &Path, root: &Path) -> Result<()> {
    let busybox = program(packages, "busybox")?;
    let bin = root.join("bin");
    for folder in [&bin, &root.join("etc"), &root.join("tmp")] {
        create(folder)?;
    }
    fs::copy(&busybox, bin.join("busybox")).context("copy busybox")?;
    for name in shell::read(Command::new(&busybox).arg("--list"))?.lines() {
        if name != "busybox" {
            symlink("busybox", bin.join(name)).with_context(|| format!("link {name}"))?;
        }
    }
    write(&root.join("etc/passwd"), b"root:x:0:0::/:/bin/sh\n")
}

/// A file in the layout, named after what is in it.
struct Blob {
    /// With `sha256:` in front.
    digest: String,
    bytes: usize,
}

fn put(blobs: &Path, content: &[u8]) -> Result<Blob> {
    let unnamed = blobs.join("new");
    write(&unnamed, content)?;
    let line = shell::read(Command::new("sha256sum").arg(&unnamed))?;
    let hash = line.split_whitespace().next().context("sha256sum says nothing")?;
    fs::rename(&unnamed, blobs.join(hash)).context("name a blob")?;
    Ok(Blob { digest: format!("sha256:{hash}"), bytes: content.len() })
}

fn config(entrypoint: &str, layer: &str) -> String {
    format!(
        r#"{{"architecture":"amd64","os":"linux","config":{{"Entrypoint":{entrypoint},"Env":["PATH=/bin"],"WorkingDir":"/"}},"rootfs":{{"type":"layers","diff_ids":["{layer}"]}}}}"#
    )
}

fn manifest(config: &Blob, layer: &Blob) -> String {
    let part = |kind, Blob { digest, bytes }: &Blob| {
        format!(
            r#"{{"mediaType":"application/vnd.oci.image.{kind}","digest":"{digest}","size":{bytes}}}"#
        )
    };
    format!(
        r#"{{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json","config":{},"layers":[{}]}}"#,
        part("config.v1+json", config),
        part("layer.v1.tar", layer)
    )
}

/// containerd imports what the index lists, under the name of the first annotation.
fn entry(name: &str, Blob { digest, bytes }: &Blob) -> String {
    format!(
        r#"{{"mediaType":"application/vnd.oci.image.manifest.v1+json","digest":"{digest}","size":{bytes},"platform":{{"architecture":"amd64","os":"linux"}},"annotations":{{"io.containerd.image.name":"{name}"}}}}"#
    )
}

fn archive(folder: &Path, file: &Path) -> Result<()> {
    let owner = ["--owner=0", "--group=0", "--numeric-owner", "--sort=name", "--mtime=@0"];
    let mut tar = Command::new("tar");
    tar.args(owner).arg("--directory").arg(folder).arg("--create").arg("--file").arg(file);
    let entries = fs::read_dir(folder).with_context(|| format!("read {}", folder.display()))?;
    for entry in entries {
        tar.arg(entry.with_context(|| format!("read {}", folder.display()))?.file_name());
    }
    shell::run_quietly(&mut tar)
}

fn create(folder: &Path) -> Result<()> {
    fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))
}

fn write(file: &Path, content: &[u8]) -> Result<()> {
    fs::write(file, content).with_context(|| format!("write {}", file.display()))
}
