//! Numbers, texts and states as bytes, and back from any bytes.

use crate::{error::StoreError, id::StoreKey, op::Gone, record::State};

pub(super) struct Writer(pub(super) Vec<u8>);

impl Writer {
    pub(super) fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    pub(super) fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_be_bytes());
    }

    /// Seven bits a byte, the lowest first; the highest bit says that more follow (LEB128).
    pub(super) fn number(&mut self, mut number: u64) {
        loop {
            let [low, ..] = number.to_le_bytes();
            number >>= 7;
            if number == 0 {
                return self.0.push(low & 0x7f);
            }
            self.0.push(low | 0x80);
        }
    }

    /// Lengths are within the limits checked by `encode`; what is not makes the record too large before it is returned.
    pub(super) fn length(&mut self, length: usize) {
        self.u32(u32::try_from(length).unwrap_or(u32::MAX));
    }

    pub(super) fn bytes(&mut self, bytes: &[u8]) {
        self.length(bytes.len());
        self.0.extend_from_slice(bytes);
    }

    pub(super) fn state(&mut self, state: State) {
        match state {
            State::Live => self.0.push(0),
            State::Moved { to, until } => {
                self.0.push(1);
                self.0.extend_from_slice(to.as_bytes());
                self.u64(until);
            }
            State::Ended { reason, to, same_user, until } => {
                self.0.push(2);
                self.0.push(match reason {
                    Gone::Absent => 0,
                    Gone::Expired => 1,
                    Gone::Deleted => 2,
                    Gone::Rotated => 3,
                });
                self.0.push(u8::from(same_user));
                self.0.push(u8::from(to.is_some()));
                if let Some(to) = to {
                    self.0.extend_from_slice(to.as_bytes());
                }
                self.u64(until);
            }
        }
    }
}

pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, length: usize) -> Result<&'a [u8], StoreError> {
        let (taken, rest) = self.0.split_at_checked(length).ok_or_else(|| broken("it is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], StoreError> {
        self.take(N)?.try_into().map_err(|_| broken("it is cut off"))
    }

    pub(super) fn u8(&mut self) -> Result<u8, StoreError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(super) fn u64(&mut self) -> Result<u64, StoreError> {
        self.array().map(u64::from_be_bytes)
    }

    pub(super) fn u32(&mut self) -> Result<u32, StoreError> {
        self.array().map(u32::from_be_bytes)
    }

    /// What [`Writer::number`] wrote, in its shortest form.
    pub(super) fn number(&mut self) -> Result<u64, StoreError> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let byte = self.u8()?;
            let bits = u64::from(byte & 0x7f);
            if shift == 63 && byte > 1 || shift > 0 && byte == 0 {
                break;
            }
            number |= bits << shift;
            if byte < 0x80 {
                return Ok(number);
            }
        }
        Err(broken("a number is too long"))
    }

    pub(super) fn flag(&mut self) -> Result<bool, StoreError> {
        match self.u8()? {
            0 => Ok(false),
            1 => Ok(true),
            _ => Err(broken("a flag is neither 0 nor 1")),
        }
    }

    pub(super) fn length(&mut self, most: usize) -> Result<usize, StoreError> {
        let length = usize::try_from(self.u32()?).unwrap_or(usize::MAX);
        if length > most { Err(broken("a length is past its limit")) } else { Ok(length) }
    }

    pub(super) fn bytes(&mut self, most: usize) -> Result<&'a [u8], StoreError> {
        let length = self.length(most)?;
        self.take(length)
    }

    pub(super) fn text(&mut self, most: usize) -> Result<&'a str, StoreError> {
        let bytes = self.bytes(most)?;
        std::str::from_utf8(bytes).map_err(|_| broken("a text is not UTF-8"))
    }

    pub(super) fn state(&mut self) -> Result<State, StoreError> {
        match self.u8()? {
            0 => Ok(State::Live),
            1 => Ok(State::Moved { to: StoreKey::from_bytes(self.array()?), until: self.u64()? }),
            2 => {
                let reason = match self.u8()? {
                    0 => Gone::Absent,
                    1 => Gone::Expired,
                    2 => Gone::Deleted,
                    3 => Gone::Rotated,
                    _ => return Err(broken("its end has an unknown reason")),
                };
                let same_user = self.flag()?;
                let to = if self.flag()? { Some(StoreKey::from_bytes(self.array()?)) } else { None };
                Ok(State::Ended { reason, to, same_user, until: self.u64()? })
            }
            _ => Err(broken("its state is unknown")),
        }
    }
}

pub(super) const fn broken(reason: &'static str) -> StoreError {
    StoreError::Decode { reason }
}
