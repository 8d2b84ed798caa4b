//! A hash that is the same on every machine and in every version, so that gateways that share nothing agree.

/// Hashes a key for [`PickRequest::key`](crate::PickRequest::key): FNV-1a with SplitMix64's finalizer.
///
/// Not for secrets: whoever chooses the key chooses the endpoint.
pub fn hash(bytes: impl AsRef<[u8]>) -> u64 {
    let fnv = bytes.as_ref().iter().fold(0xCBF2_9CE4_8422_2325, |hash: u64, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01B3)
    });
    mix(fnv)
}

/// Another hash of a hash, the `n`th.
pub(crate) fn again(hash: u64, n: u64) -> u64 {
    mix(hash ^ n.wrapping_mul(0x9E37_79B9_7F4A_7C15))
}

/// A hash as a number in 0..1.
pub(crate) fn unit(hash: u64) -> f32 {
    (hash >> 40) as f32 / (1u32 << 24) as f32
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_never_changes() {
        assert_eq!(hash(""), 0xF52A_15E9_A9B5_E89B);
        assert_eq!(hash("web.1"), hash(b"web.1"));
        assert_ne!(hash("web.1"), hash("web.2"));
        assert!((0.0..1.0).contains(&unit(u64::MAX)));
    }
}
