//! Slices as they were agreed on, in files.

use std::env;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Asks that the file `name` of `testdata` says what was rendered, or with `WEIR_GOLDEN=write` has it
/// say so.
pub(super) fn is_golden(name: &str, rendered: &Value) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/dra/testdata").join(name);
    if env::var("WEIR_GOLDEN").as_deref() == Ok("write") {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, written(rendered)).unwrap();
        return;
    }
    let golden: Value = serde_json::from_str(&fs::read_to_string(&path).unwrap()).unwrap();
    assert_eq!(*rendered, golden, "{name}, as text:\n{}", written(rendered));
}

/// JSON with an attribute in each line: an object that holds one plain value is written in one.
fn written(value: &Value) -> String {
    let pretty = format!("{value:#}\n");
    let lines: Vec<_> = pretty.lines().collect();
    let mut text = String::new();
    let mut at = 0;
    while at < lines.len() {
        text.push_str(lines[at]);
        let end = lines.get(at + 2).map_or("", |line| line.trim());
        if lines[at].ends_with(": {") && matches!(end, "}" | "},") {
            text.push_str(lines[at + 1].trim());
            text.push_str(end);
            at += 2;
        }
        text.push('\n');
        at += 1;
    }
    text
}
