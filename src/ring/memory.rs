//! Where a thread's memory comes from.

use std::io;

/// Nodes that the mask of `set_mempolicy` has room for here.
const NODES_MAX: usize = 1024;
const WORD_BITS: usize = libc::c_ulong::BITS as usize;

/// Has the memory that the calling thread touches first come from this NUMA node while it has some, else from others.
///
/// # Errors
/// Those of `set_mempolicy`: no such node, or not permitted.
pub fn prefer_memory_node(node: usize) -> io::Result<()> {
    if node >= NODES_MAX {
        let message = format!("NUMA node {node} is beyond the highest possible number {}", NODES_MAX - 1);
        return Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    }
    let mut mask: [libc::c_ulong; NODES_MAX / WORD_BITS] = [0; NODES_MAX / WORD_BITS];
    mask[node / WORD_BITS] |= 1 << (node % WORD_BITS);
    // The kernel takes one bit less than it is told.
    let bits = NODES_MAX + 1;
    // SAFETY: the mask outlives the call and has as many bits as the kernel reads of it.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, libc::MPOL_PREFERRED, mask.as_ptr(), bits) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every kernel with NUMA has node 0; one without does not know the call.
    #[test]
    fn node_0_is_there_and_an_impossible_one_is_refused() {
        std::thread::spawn(|| match prefer_memory_node(0) {
            Ok(()) => assert_eq!(prefer_memory_node(1000).unwrap_err().raw_os_error(), Some(libc::EINVAL)),
            Err(error) => assert!(matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)), "{error}"),
        })
        .join()
        .unwrap();
        assert_eq!(prefer_memory_node(NODES_MAX).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
