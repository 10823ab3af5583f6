//! Folders in an object store, by their address: `s3://bucket/folder`, `file:///folder`.
//!
//! Images and tensors are read from files, so that what is read is copied to this machine first
//! ([`Store::copy`], [`Store::copy_files`]), and again only once it has changed. What is written is
//! put there whole, and never over something else ([`Store::put`]): two workers that make the same,
//! or one that is started again, do no harm.
//!
//! - `remote`: the store. - `copies`: the copies of its objects here. - `explain`: its errors, each
//!   with what can be done. - `absent`: what stands for it where this was built without.

#[cfg(not(feature = "object-store"))]
mod absent;
#[cfg(feature = "object-store")]
mod copies;
#[cfg(feature = "object-store")]
mod explain;
#[cfg(feature = "object-store")]
mod remote;
#[cfg(all(test, feature = "object-store"))]
mod tests;

use std::path::Path;

#[cfg(not(feature = "object-store"))]
pub use absent::Store;
#[cfg(feature = "object-store")]
pub use remote::Store;

/// What became of an object that was put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    New,
    /// The same bytes were there.
    Same,
    /// Other bytes are there, and stay.
    Other,
}

/// Whether this is the address of a folder in an object store, such as `s3://bucket/folder`, rather
/// than a path.
pub fn is_address(path: &Path) -> bool {
    let scheme = path.to_str().and_then(|text| text.split_once("://")).map_or("", |(scheme, _)| scheme);
    scheme.starts_with(|c: char| c.is_ascii_alphabetic()) && scheme.chars().all(|c| c.is_ascii_alphanumeric())
}

/// The folder with the copies: `$PEREGRINE_STORE_CACHE`, else `peregrine/store` in the user's cache.
#[cfg(feature = "object-store")]
fn cache() -> anyhow::Result<std::path::PathBuf> {
    let set = |name: &str| std::env::var_os(name).filter(|v| !v.is_empty()).map(std::path::PathBuf::from);
    let found = set("PEREGRINE_STORE_CACHE")
        .or_else(|| set("XDG_CACHE_HOME").map(|p| p.join("peregrine/store")))
        .or_else(|| set("HOME").map(|p| p.join(".cache/peregrine/store")));
    anyhow::Context::context(found, "PEREGRINE_STORE_CACHE names no folder for copies from the object store; set it")
}

#[cfg(test)]
mod address_tests {
    use super::*;

    #[test]
    fn addresses_are_told_from_paths() {
        for address in ["s3://bucket", "s3://bucket/a/b", "file:///tmp/x"] {
            assert!(is_address(Path::new(address)), "{address}");
        }
        for path in ["soft", "/a/b", "://a", "s3:/bucket", "my data://x"] {
            assert!(!is_address(Path::new(path)), "{path}");
        }
    }

    #[cfg(not(feature = "object-store"))]
    #[test]
    fn without_object_stores_an_address_is_refused_with_how_to_build_them() {
        let address = Path::new("s3://bucket/my:val");
        let error = crate::data::Dataset::open(address, None).unwrap_err().to_string();
        assert!(error.starts_with("s3://bucket/my: ") && error.contains("--features object-store"), "{error}");
    }
}
