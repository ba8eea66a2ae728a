//! A reader with a mail program.

use roost::cli::cluster::ClusterPeer;
use roost::cli::demo::imap_client::{ImapClient, ImapError};

use super::{Mail, wait_for};

/// Somebody whose mail program is open at INBOX.
pub(crate) struct Reader {
    /// The connection.
    pub(crate) imap: ImapClient,
}

impl Reader {
    /// Logs in at a running peer.
    pub(crate) fn login(peer: &ClusterPeer) -> Self {
        let mut imap = ImapClient::login(&peer.imap, &peer.address.to_string(), &peer.password).unwrap();
        imap.select("INBOX").unwrap();
        Self { imap }
    }

    /// UIDs under which the mail is in INBOX now.
    pub(crate) fn uids_of(&mut self, mail: &Mail) -> Vec<u32> {
        self.imap.command("NOOP").unwrap();
        self.imap.uid_search(&format!("HEADER Message-ID \"{}\"", mail.letter.id)).unwrap()
    }

    /// Waits until the mail is in INBOX; gives its UID.
    pub(crate) fn sees(&mut self, mail: &Mail) -> u32 {
        wait_for("the mail is in INBOX", || self.uids_of(mail).first().copied())
    }

    /// Opens the mail, without marking it as read.
    pub(crate) fn opens(&mut self, mail: &Mail) -> Result<Vec<u8>, ImapError> {
        let uid = self.sees(mail);
        self.imap.fetch(uid, "", &mut |_, _| {})
    }

    /// Opens the mail as often as is needed: who has it may not be known yet, or may be on its way.
    pub(crate) fn reads_in_the_end(&mut self, mail: &Mail) {
        let got = wait_for("the mail can be had", || match self.opens(mail) {
            Ok(got) => Some(got),
            Err(no) => {
                assert!(no.is_unavailable(), "{no}");
                None
            }
        });
        assert!(got == mail.letter.bytes, "{} bytes came, {} were submitted", got.len(), mail.letter.bytes.len());
    }

    /// Opens the mail, which must be what was submitted, to the byte.
    pub(crate) fn reads_every_byte_of(&mut self, mail: &Mail) {
        let got = self.opens(mail).unwrap();
        assert!(got == mail.letter.bytes, "{} bytes came, {} were submitted", got.len(), mail.letter.bytes.len());
    }
}
