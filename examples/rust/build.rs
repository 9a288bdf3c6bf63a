// BOXOPS_PREFIX: where boxops is installed, as `python -c "import boxops; print(boxops.cmake_prefix_path)"` says.
fn main() {
    let prefix = std::env::var("BOXOPS_PREFIX").expect("expected BOXOPS_PREFIX to name boxops' folder, got nothing");
    println!("cargo:rerun-if-env-changed=BOXOPS_PREFIX");
    println!("cargo:rustc-link-search=native={prefix}/lib");
    println!("cargo:rustc-link-lib=dylib=boxops");
    println!("cargo:rustc-link-arg=-Wl,-rpath,{prefix}/lib");
}
