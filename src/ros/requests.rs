//! Requests of services, taken by the thread that spins the node when it has time for them.

use futures::{FutureExt, Stream, StreamExt};
use r2r::{ServiceRequest, WrappedServiceTypeSupport};

/// The requests of one service that have not been taken yet.
pub type Requests<T> = Box<dyn Stream<Item = ServiceRequest<T>> + Unpin>;

/// The next request that has come, without waiting for one.
pub fn next<T: WrappedServiceTypeSupport>(requests: &mut Requests<T>) -> Option<ServiceRequest<T>> {
    requests.next().now_or_never().flatten()
}
