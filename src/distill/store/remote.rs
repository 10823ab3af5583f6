//! A folder in an object store.

use std::fmt;
use std::future::Future;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{bail, Context};
use futures::TryStreamExt;
use object_store::path::Path as Key;
use object_store::{Error, ObjectMeta, ObjectStore, ObjectStoreExt, PutMode, PutPayload};
use peregrine_core::files::sha256;
use tokio::runtime::{Builder, Runtime};
use url::Url;

use super::copies::Copies;
use super::explain::explain;
use super::{cache, Put};

/// For a whole request, unless `AWS_TIMEOUT` gives another: a shard may have hundreds of megabytes,
/// for which the 30 s of `object_store` are too short.
const TIMEOUT: &str = "10 minutes";

/// How often an object is put that is neither taken nor there.
const ATTEMPTS: usize = 10;
const BETWEEN_ATTEMPTS: Duration = Duration::from_secs(1);

/// A folder in an object store. Names are those of its objects within the folder, with `/` between
/// parts.
pub struct Store {
    address: String,
    objects: Box<dyn ObjectStore>,
    /// The folder's key; no object's key if the folder is the whole bucket.
    folder: Key,
    /// The requests run on it, and only while one is waited for.
    runtime: Runtime,
    pub(super) copies: Copies,
    work: PathBuf,
}

impl Store {
    /// Opens the folder at `address`, with what the variables AWS_… say of endpoint and credentials.
    /// Nothing is sent yet.
    ///
    /// # Errors
    /// When it is no address, or a variable is invalid.
    pub fn open(address: &Path) -> anyhow::Result<Self> {
        let text = address.to_str().with_context(|| format!("{}: is not UTF-8", address.display()))?;
        let at = || format!("{text}: is no address of an object store; they look like s3://bucket/folder");
        let url = Url::parse(text).with_context(at)?;
        // Of two that are set already the first stays; both are the same.
        let _ = rustls::crypto::ring::default_provider().install_default();
        let variables =
            std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
        let variables = variables.filter(|(name, _)| name.starts_with("AWS_"));
        let options = std::iter::once(("timeout".to_owned(), TIMEOUT.to_owned())).chain(variables);
        let (objects, folder) = object_store::parse_url_opts(&url, options).with_context(at)?;
        let endpoint = ["AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT_URL", "AWS_ENDPOINT"]
            .map(|name| std::env::var(name).unwrap_or_default());
        Self::of(text, objects, folder, &endpoint.concat(), &cache()?)
    }

    /// The folder with the key `folder` among `objects`, copied to below `cache`. Of two stores of the same address `endpoint`
    /// tells which it is.
    pub(super) fn of(
        address: &str,
        objects: Box<dyn ObjectStore>,
        folder: Key,
        endpoint: &str,
        cache: &Path,
    ) -> anyhow::Result<Self> {
        let runtime =
            Builder::new_current_thread().enable_all().build().context("cannot start the object store's requests")?;
        let address = address.trim_end_matches('/').to_owned();
        let bucket = address.strip_suffix(folder.as_ref()).unwrap_or(&address).trim_end_matches('/');
        let digest = |text: &str| sha256(format!("{endpoint}\n{text}").as_bytes())[..16].to_owned();
        let name = bucket.rsplit('/').next().unwrap_or_default().trim_end_matches(':');
        let copies = Copies::in_folder(&cache.join(digest(bucket)), name);
        let work = cache.join("work").join(digest(&address));
        Ok(Self { address, objects, folder, runtime, copies, work })
    }

    /// The folder with the key `folder` among objects in memory.
    #[cfg(test)]
    pub(crate) fn in_memory(
        objects: &std::sync::Arc<object_store::memory::InMemory>,
        folder: &str,
        cache: &Path,
    ) -> Self {
        let address = format!("s3://bucket/{folder}");
        Self::of(&address, Box::new(std::sync::Arc::clone(objects)), folder.into(), "", cache).unwrap()
    }

    /// A folder of this machine for work on what is to be put there.
    pub fn work_folder(&self) -> &Path {
        &self.work
    }

    /// The names of all objects.
    ///
    /// # Errors
    /// When the store does not give them.
    pub fn names(&self) -> anyhow::Result<Vec<String>> {
        let below = |object: ObjectMeta| self.name_of(&object.location).map(str::to_owned);
        Ok(self.list(&self.folder)?.into_iter().filter_map(below).collect())
    }

    /// The bytes of an object; `None` if it is not there.
    ///
    /// # Errors
    /// When the store does not give it.
    pub fn get(&self, name: &str) -> anyhow::Result<Option<Vec<u8>>> {
        let key = self.key(name)?;
        let get = async { self.objects.get(&key).await?.bytes().await };
        match self.wait(get) {
            Ok(bytes) => Ok(Some(bytes.into())),
            Err(error @ Error::NotFound { .. }) if !is_of_bucket(&error) => Ok(None),
            Err(error) => Err(self.explain(&error)),
        }
    }

    /// Puts an object where nothing is yet.
    ///
    /// # Errors
    /// When the store does not take it.
    pub fn put(&self, name: &str, bytes: Vec<u8>) -> anyhow::Result<Put> {
        let key = self.key(name)?;
        let payload = PutPayload::from(bytes);
        for _ in 0..ATTEMPTS {
            match self.wait(self.objects.put_opts(&key, payload.clone(), PutMode::Create.into())) {
                Ok(_) => return Ok(Put::New),
                // Also where our own came through, and the answer did not.
                Err(Error::AlreadyExists { .. }) => {
                    if let Some(found) = self.get(name)? {
                        let same = payload.iter().flatten().eq(&found);
                        return Ok(if same { Put::Same } else { Put::Other });
                    }
                }
                Err(error) => return Err(self.explain(&error)),
            }
            // Another puts it at this moment: S3 says that it conflicts before it is there.
            std::thread::sleep(BETWEEN_ATTEMPTS);
        }
        bail!("{self}/{name}: another program keeps putting and deleting it; end that, and give the command again")
    }

    /// The object of this key; `None` if there is none.
    pub(super) fn find(&self, key: &Key) -> anyhow::Result<Option<ObjectMeta>> {
        match self.wait(self.objects.head(key)) {
            Ok(object) => Ok(Some(object)),
            Err(Error::NotFound { .. }) => Ok(None),
            Err(error) => Err(self.explain(&error)),
        }
    }

    /// All objects below a key.
    pub(super) fn list(&self, folder: &Key) -> anyhow::Result<Vec<ObjectMeta>> {
        let list = self.objects.list((!folder.is_root()).then_some(folder));
        self.wait(list.try_collect()).map_err(|error| self.explain(&error))
    }

    /// Hands each part of an object's bytes to `take`, and tells which object it was.
    pub(super) fn read(
        &self,
        key: &Key,
        mut take: impl FnMut(&[u8]) -> std::io::Result<()>,
    ) -> std::io::Result<ObjectMeta> {
        let failed = |error: Error| std::io::Error::other(format!("{:#}", self.explain(&error)));
        let got = self.wait(self.objects.get(key)).map_err(failed)?;
        let object = got.meta.clone();
        let mut parts = got.into_stream();
        while let Some(part) = self.wait(parts.try_next()).map_err(failed)? {
            take(&part)?;
        }
        Ok(object)
    }

    /// The folder's own key.
    pub(super) fn folder(&self) -> &Key {
        &self.folder
    }

    pub(super) fn key(&self, name: &str) -> anyhow::Result<Key> {
        Key::parse(format!("{}/{name}", self.folder).trim_start_matches('/')).with_context(|| format!("{self}/{name}"))
    }

    /// The name of the object with this key, if it is in the folder.
    pub(super) fn name_of<'a>(&self, key: &'a Key) -> Option<&'a str> {
        if self.folder.is_root() {
            return Some(key.as_ref());
        }
        key.as_ref().strip_prefix(self.folder.as_ref())?.strip_prefix('/')
    }

    fn wait<T>(&self, request: impl Future<Output = T>) -> T {
        self.runtime.block_on(request)
    }

    fn explain(&self, error: &Error) -> anyhow::Error {
        explain(&self.address, error)
    }
}

/// Whether there is not even the bucket.
fn is_of_bucket(error: &Error) -> bool {
    error.to_string().contains("NoSuchBucket")
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        write!(f, "Store({})", self.address)
    }
}

impl fmt::Display for Store {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str(&self.address)
    }
}
