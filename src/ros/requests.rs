//! Requests of services, taken by the thread that spins the node.

use futures::{FutureExt, Stream, StreamExt};
use r2r::{ServiceRequest, WrappedServiceTypeSupport};

/// The waiting requests of one service.
pub type Requests<T> = Box<dyn Stream<Item = ServiceRequest<T>> + Unpin>;

/// The next waiting request, if there is one.
pub fn next<T: WrappedServiceTypeSupport>(requests: &mut Requests<T>) -> Option<ServiceRequest<T>> {
    requests.next().now_or_never().flatten()
}
