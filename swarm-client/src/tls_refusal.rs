//! Whose certificate was not taken, and what to do about it.
//!
//! With TLS 1.3 an engine's refusal of this client arrives when the handshake is over on this side, as the answer to the first
//! request. It is a refusal of the connection all the same: the engine has read nothing of the request.

use std::error::Error as StdError;
use std::fmt;
use std::io;

use rustls::{AlertDescription, CertificateError, InvalidMessage};

/// A connection that came to nothing because of a certificate, or because the other side does not speak TLS.
#[derive(Debug)]
pub(crate) struct TlsRefusal {
    kind: Kind,
    source: rustls::Error,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Issuer,
    Name,
    Time,
    Engine,
    Client,
    NoClient,
    NotTls,
}

impl TlsRefusal {
    /// The refusal that [`refusal`] has put into an I/O error.
    pub(crate) fn of(error: &io::Error) -> Option<&Self> {
        error.get_ref()?.downcast_ref()
    }

    /// What to do.
    pub(crate) fn advice(&self) -> &'static str {
        match self.kind {
            Kind::Issuer => "give as ca.pem the authority that signed the engine's certificate",
            Kind::Name => "reach the engine by a name or an address that its certificate has",
            Kind::Time => "renew the engine's certificate, and look at the clocks of both machines",
            Kind::Engine => "look at the engine's certificate (--tlscert)",
            Kind::Client => {
                "use a cert.pem and key.pem that the engine's authority (--tlscacert) signed for clients"
            }
            Kind::NoClient => {
                "put a cert.pem and key.pem that the engine's authority (--tlscacert) signed beside ca.pem"
            }
            Kind::NotTls => {
                "unset DOCKER_TLS_VERIFY and use tcp://, or name the engine's port for TLS, often 2376"
            }
        }
    }
}

impl fmt::Display for TlsRefusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.kind {
            Kind::Issuer => "the engine's certificate is not of the authority in ca.pem",
            Kind::Name => "the engine's certificate is for another name",
            Kind::Time => "the engine's certificate has run out or is not valid yet",
            Kind::Engine => "the engine's certificate is not taken",
            Kind::Client => "the engine refuses this client's certificate (cert.pem)",
            Kind::NoClient => "the engine asks for a client certificate, and there is none",
            Kind::NotTls => "it does not speak TLS",
        })?;
        write!(f, " ({})", self.source)
    }
}

impl StdError for TlsRefusal {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        Some(&self.source)
    }
}

/// The refusal that an error of TLS, or of HTTP over it, stands for; `None` where it is none.
pub(crate) fn refusal(error: &(dyn StdError + 'static), has_identity: bool) -> Option<io::Error> {
    let source = tls_error(error)?;
    let kind = match source {
        rustls::Error::InvalidCertificate(problem) => match problem {
            CertificateError::UnknownIssuer | CertificateError::BadSignature => Kind::Issuer,
            CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => Kind::Name,
            CertificateError::Expired
            | CertificateError::ExpiredContext { .. }
            | CertificateError::NotValidYet
            | CertificateError::NotValidYetContext { .. } => Kind::Time,
            _ => Kind::Engine,
        },
        // Engines differ in which of these they send, and older ones in whether they tell none from a bad one.
        rustls::Error::AlertReceived(
            AlertDescription::CertificateRequired
            | AlertDescription::BadCertificate
            | AlertDescription::UnsupportedCertificate
            | AlertDescription::CertificateRevoked
            | AlertDescription::CertificateExpired
            | AlertDescription::CertificateUnknown
            | AlertDescription::UnknownCA
            | AlertDescription::AccessDenied,
        ) => match has_identity {
            true => Kind::Client,
            false => Kind::NoClient,
        },
        // Of an authority that has the same name and another key.
        rustls::Error::AlertReceived(AlertDescription::DecryptError) if has_identity => Kind::Client,
        rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType) => Kind::NotTls,
        _ => return None,
    };
    Some(io::Error::new(io::ErrorKind::InvalidData, TlsRefusal { kind, source: source.clone() }))
}

/// Whether the other side said so itself.
pub(crate) fn is_alert(error: &(dyn StdError + 'static)) -> bool {
    matches!(tls_error(error), Some(rustls::Error::AlertReceived(_)))
}

/// Looks through what wraps it: an I/O error names as its source that of what it holds, not what it holds.
fn tls_error<'a>(error: &'a (dyn StdError + 'static)) -> Option<&'a rustls::Error> {
    let mut next = Some(error);
    for _ in 0..DEPTH {
        let at = next?;
        if let Some(found) = at.downcast_ref::<rustls::Error>() {
            return Some(found);
        }
        next = match at.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(held) => Some(held as &'a (dyn StdError + 'static)),
            None => at.source(),
        };
    }
    None
}

const DEPTH: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    fn told(error: rustls::Error, has_identity: bool) -> Option<String> {
        let wrapped = io::Error::other(io::Error::new(io::ErrorKind::InvalidData, error));
        let refused = refusal(&wrapped, has_identity)?;
        let inner = TlsRefusal::of(&refused)?;
        Some(format!("{inner}; {}", inner.advice()))
    }

    #[test]
    fn whose_certificate_it_was_is_said_with_what_to_do() {
        let bad = |problem| told(rustls::Error::InvalidCertificate(problem), true).unwrap();
        assert!(
            bad(CertificateError::UnknownIssuer)
                .starts_with("the engine's certificate is not of the authority")
        );
        assert!(bad(CertificateError::Expired).contains("renew the engine's certificate"));
        assert!(bad(CertificateError::NotValidForName).contains("for another name"));
        assert!(bad(CertificateError::Revoked).contains("--tlscert)"));
        let alert = || rustls::Error::AlertReceived(AlertDescription::BadCertificate);
        assert!(
            told(alert(), true)
                .unwrap()
                .starts_with("the engine refuses this client's certificate (cert.pem)")
        );
        assert!(told(alert(), false).unwrap().contains("and there is none"));
        let plain = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert!(told(plain, true).unwrap().starts_with("it does not speak TLS"));
        assert_eq!(told(rustls::Error::AlertReceived(AlertDescription::InternalError), true), None);
        assert!(refusal(&io::Error::from(io::ErrorKind::BrokenPipe), true).is_none());
        let plain = rustls::Error::InvalidMessage(InvalidMessage::InvalidContentType);
        assert!(is_alert(&io::Error::other(alert())) && !is_alert(&io::Error::other(plain)));
    }
}
