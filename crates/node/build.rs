//! The link arguments a Node.js module needs on each platform.

fn main() {
    napi_build::setup();
}
