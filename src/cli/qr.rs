//! QR codes of lines that people hand each other, as text for a terminal. It never prints.

use qrcode::render::unicode::Dense1x2;
use qrcode::{EcLevel, QrCode};

/// The code of `line`, dark on light, or nothing when the line is too long for one.
pub(super) fn of(line: &str) -> Option<String> {
    let code = QrCode::with_error_correction_level(line, EcLevel::L).ok()?;
    // Terminals are mostly dark: what a camera must see as light is drawn.
    Some(code.render::<Dense1x2>().dark_color(Dense1x2::Light).light_color(Dense1x2::Dark).build())
}

/// `line`, on a terminal with its code under it.
pub(super) fn with_code(line: &str) -> String {
    match of(line).filter(|_| super::output::on_terminal()) {
        Some(code) => format!("{line}\n\n{code}"),
        None => line.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_a_code_and_a_book_has_none() {
        let code = of("roost-card:abc").unwrap();
        assert!(code.lines().count() > 10 && code.contains('█'));
        assert!(of(&"x".repeat(4000)).is_none());
    }
}
