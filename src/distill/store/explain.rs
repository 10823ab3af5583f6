//! Errors of an object store as one sentence: the address, the cause, and what can be done.

use std::error::Error as _;
use std::io::ErrorKind;

use anyhow::anyhow;
use object_store::Error;

/// What can be done where the store knows the user and refuses.
const ACCESS_DENIED: &str =
    "access is denied: check AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, and what they may do with this bucket";

/// Words of a cause, in lower case, and what can be done. The first that fits is taken.
const REMEDIES: [(&[&str], &str); 7] = [
    (
        &["169.254.169.254"],
        "there are no credentials: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (AWS_SKIP_SIGNATURE=true where none are needed)",
    ),
    (&["nosuchbucket"], "there is no such bucket: make it, or correct the address"),
    (
        &["507 ", "insufficient storage", "storagefull", "quotaexceeded", "quota exceeded", "no space left", "no free volumes"],
        "the object store is full: make room there, and give the command again; what was put before is whole",
    ),
    (
        &["403 ", "401 ", "accessdenied", "invalidaccesskeyid", "signaturedoesnotmatch"],
        ACCESS_DENIED,
    ),
    (
        &["scheme is not http", "url scheme is not allowed", "https only", "builder error"],
        "set AWS_ALLOW_HTTP=true for an endpoint without encryption, or correct AWS_ENDPOINT_URL",
    ),
    (
        &["500 internal", "internalerror", "503 "],
        "the object store fails by itself, and does not say why: see its log, make room if it is full, and give the command \
         again; what was put before is whole",
    ),
    (
        &["tcp connect", "connection refused", "dns error", "timed out", "error sending request", "unreachable"],
        "the object store cannot be reached: check AWS_ENDPOINT_URL and the network, and give the command again",
    ),
];

/// The sentence for `error`, of the folder at `address`.
pub(super) fn explain(address: &str, error: &Error) -> anyhow::Error {
    let whole = chain(error);
    let remedy = match error {
        Error::PermissionDenied { .. } | Error::Unauthenticated { .. } => Some(ACCESS_DENIED),
        _ => remedy(&whole),
    };
    let cause = short(&whole.last().map_or_else(|| error.to_string(), Clone::clone));
    match remedy {
        Some(remedy) => anyhow!("{address}: {remedy} ({cause})"),
        None => anyhow!("{address}: the object store fails: {cause}"),
    }
}

/// What each error says, down to the first cause.
fn chain(error: &Error) -> Vec<String> {
    let causes = std::iter::successors(error.source(), |&cause| cause.source());
    let full = causes.clone().filter_map(|cause| cause.downcast_ref::<std::io::Error>());
    let full =
        full.map(std::io::Error::kind).any(|kind| matches!(kind, ErrorKind::StorageFull | ErrorKind::QuotaExceeded));
    let mut said = vec![error.to_string()];
    said.extend(full.then(|| "no space left".to_owned()));
    said.extend(causes.map(ToString::to_string));
    said
}

fn remedy(causes: &[String]) -> Option<&'static str> {
    let causes: Vec<String> = causes.iter().map(|cause| cause.to_lowercase()).collect();
    let fits = |words: &&[&str]| words.iter().any(|word| causes.iter().any(|cause| cause.contains(word)));
    REMEDIES.iter().find(|(words, _)| fits(words)).map(|(_, remedy)| *remedy)
}

/// What the server's answer in XML says, or the cause as it is.
fn short(cause: &str) -> String {
    let tag = |name: &str| {
        let (_, rest) = cause.split_once(&format!("<{name}>"))?;
        rest.split_once(&format!("</{name}>")).map(|(text, _)| text.trim())
    };
    match (tag("Code"), tag("Message")) {
        (Some(code), Some(message)) => format!("{code}: {}", message.trim_end_matches('.')),
        _ => cause.trim().trim_end_matches(':').to_owned(),
    }
}
