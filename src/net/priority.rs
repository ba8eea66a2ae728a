//! How soon an answer is needed, in the `Priority` header (RFC 9218). It is a wish: it changes the order in which bytes go out,
//! never who may have them.

use hyper::header::{HeaderMap, HeaderName, HeaderValue};

use crate::model::Urgency;

/// The name of the header (RFC 9218 section 5).
pub(super) const PRIORITY: HeaderName = HeaderName::from_static("priority");
/// The urgency of what nobody waits for (RFC 9218 section 4.1).
const BACKGROUND: &str = "u=7";

/// The header's value; none for what is prompt, as most requests are.
pub(super) fn priority_header(urgency: Urgency) -> Option<HeaderValue> {
    (urgency == Urgency::Background).then(|| HeaderValue::from_static(BACKGROUND))
}

/// What a request says of its urgency. Whatever cannot be read is prompt, as if nothing were said.
pub(super) fn urgency(request: &HeaderMap) -> Urgency {
    let values = request.get_all(PRIORITY).iter().filter_map(|value| value.to_str().ok());
    // Of several members of the dictionary with one name the last counts (RFC 8941 section 3.2).
    let last = values.flat_map(|value| value.split(',')).map(str::trim).rfind(|member| member.starts_with("u="));
    if last == Some(BACKGROUND) { Urgency::Background } else { Urgency::Prompt }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn said(values: &[&'static str]) -> Urgency {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(PRIORITY, HeaderValue::from_static(value));
        }
        urgency(&headers)
    }

    #[test]
    fn rfc9218_urgency_seven_is_background_and_all_else_prompt() {
        assert_eq!(said(&[]), Urgency::Prompt);
        for background in [&["u=7"][..], &["u=7, i"], &["i, u=7"], &["u=1, u=7"], &["u=1", "u=7"]] {
            assert_eq!(said(background), Urgency::Background, "{background:?}");
        }
        for prompt in [&["u=0"][..], &["u=3, i"], &["i"], &["u=7, u=2"], &["u=77"], &["u="], &["background"]] {
            assert_eq!(said(prompt), Urgency::Prompt, "{prompt:?}");
        }
    }

    #[test]
    fn what_is_written_is_read() {
        for urgency in [Urgency::Prompt, Urgency::Background] {
            let mut headers = HeaderMap::new();
            headers.extend(priority_header(urgency).map(|value| (PRIORITY, value)));
            assert_eq!(super::urgency(&headers), urgency);
        }
    }
}
