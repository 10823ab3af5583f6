//! What stands for an object store where this was built without one.

use std::fmt;
use std::path::{Path, PathBuf};

use anyhow::bail;

use super::Put;

/// There is none.
#[derive(Debug)]
pub enum Store {}

impl Store {
    /// Refuses the address.
    ///
    /// # Errors
    /// Always; says how to build with object stores.
    pub fn open(address: &Path) -> anyhow::Result<Self> {
        bail!(
            "{}: this program was built without object stores; build it by `cargo build --release --features object-store`",
            address.display()
        )
    }

    /// See the store itself; there is none to call this on.
    ///
    /// # Errors
    /// None.
    pub fn names(&self) -> anyhow::Result<Vec<String>> {
        match *self {}
    }

    /// See the store itself; there is none to call this on.
    ///
    /// # Errors
    /// None.
    pub fn get(&self, _name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        match *self {}
    }

    /// See the store itself; there is none to call this on.
    ///
    /// # Errors
    /// None.
    pub fn put(&self, _name: &str, _bytes: Vec<u8>) -> anyhow::Result<Put> {
        match *self {}
    }

    /// See the store itself; there is none to call this on.
    ///
    /// # Errors
    /// None.
    pub fn copy(&self, _shared: &str) -> anyhow::Result<PathBuf> {
        match *self {}
    }

    /// See the store itself; there is none to call this on.
    ///
    /// # Errors
    /// None.
    pub fn copy_files(&self, _names: &[&str]) -> anyhow::Result<PathBuf> {
        match *self {}
    }

    /// See the store itself; there is none to call this on.
    pub fn work_folder(&self) -> &Path {
        match *self {}
    }
}

impl fmt::Display for Store {
    fn fmt(&self, _: &mut fmt::Formatter) -> fmt::Result {
        match *self {}
    }
}
