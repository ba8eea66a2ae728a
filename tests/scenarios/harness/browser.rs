//! The web page of a peer as a browser or a script finds it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use serde_json::Value;

use super::{ROOST, Team};

/// An answer: status, head and body.
pub(crate) struct Answer {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: String,
}

/// A browser without tabs, images or manners of its own.
pub(crate) struct Browser {
    pub(crate) console: String,
    pub(crate) cookie: Option<String>,
}

impl Browser {
    /// Sends `method path` with `headers` (each ends in CRLF) and `body`.
    pub(crate) fn send(&self, line: &str, headers: &str, body: &str) -> Answer {
        let mut stream = TcpStream::connect(&self.console).unwrap();
        let host = if headers.contains("Host: ") { String::new() } else { format!("Host: {}\r\n", self.console) };
        let cookie = self.cookie.as_ref().map(|cookie| format!("Cookie: {cookie}\r\n")).unwrap_or_default();
        let length = body.len();
        let request = format!(
            "{line} HTTP/1.1\r\n{host}{cookie}{headers}Connection: close\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        stream.write_all(request.as_bytes()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let status = head.split(' ').nth(1).and_then(|code| code.parse().ok()).unwrap();
        Answer { status, head: head.to_owned(), body: body.to_owned() }
    }
    /// Follows a link.
    pub(crate) fn get(&self, path: &str) -> Answer {
        self.send(&format!("GET {path}"), "", "")
    }
    /// Sends a form of the page.
    pub(crate) fn post(&self, path: &str, form: &str) -> Answer {
        self.send(&format!("POST {path}"), &format!("Origin: http://{}\r\n", self.console), form)
    }
    /// The page after a login with what `roost console` prints.
    pub(crate) fn logged_in(team: &Team, name: &str) -> Self {
        let mut command = std::process::Command::new(ROOST);
        let out = command.args(["console", "--json", "--home"]).arg(team.home(name).root()).output().unwrap();
        let printed: Value = serde_json::from_slice(&out.stdout).unwrap();
        let console = printed["console"].as_str().unwrap().to_owned();
        // A peer that the test itself started is none of the cluster's.
        assert!(team.peer(name).console.is_none_or(|known| known == console), "the cluster's status names it too");
        let mut browser = Self { console, cookie: None };
        let path = printed["url"].as_str().unwrap().strip_prefix(&format!("http://{}", browser.console)).unwrap();
        let answer = browser.get(path);
        assert_eq!(answer.status, 303, "{}", answer.head);
        let cookie = answer.head.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
        assert!(cookie.contains("HttpOnly") && cookie.contains("SameSite=Strict"), "{cookie}");
        browser.cookie = cookie.split(';').next().map(str::to_owned);
        browser
    }
    /// What every form of the page carries.
    pub(crate) fn form(&self) -> String {
        let page = self.get("/").body;
        let (_, after) = page.split_once("name=\"form\" value=\"").expect("the page has a form");
        after.split('"').next().unwrap().to_owned()
    }
    /// Presses the button with this text on the page in `page`: sends what its form carries, and nothing else.
    pub(crate) fn press(&self, page: &str, text: &str) -> Answer {
        let (action, form) = Self::form_of(page, text);
        self.post(&action, &form)
    }
    /// Where the button with this text sends its form, and what.
    pub(crate) fn form_of(page: &str, text: &str) -> (String, String) {
        let mut forms = page.split("<form ").skip(1).map(|form| form.split("</form>").next().unwrap());
        let form = forms.find(|form| form.contains(&format!("<button>{text}</button>")));
        let form = form.unwrap_or_else(|| panic!("no button {text}: {page}"));
        assert!(form.starts_with("method=\"post\""), "{form}");
        let value =
            |of: &str, name: &str| of.split(&format!(" {name}=\"")).nth(1)?.split('"').next().map(str::to_owned);
        let action = value(form, "action").unwrap();
        let inputs = form.split("<input ").skip(1).map(|input| input.split('>').next().unwrap());
        let fields = inputs.map(|input| {
            let input = format!(" {input}");
            format!("{}={}", value(&input, "name").unwrap(), value(&input, "value").unwrap_or_default())
        });
        (action, fields.collect::<Vec<_>>().join("&"))
    }
}

/// What is in identity/console.token.
pub(crate) fn token(team: &Team, name: &str) -> String {
    std::fs::read_to_string(team.home(name).identity_dir().join("console.token")).unwrap()
}

/// Bytes of mails, parts and manifests that the peer of `name` has served since its start, as /metrics says.
pub(crate) fn served_bytes(team: &Team, name: &str) -> u64 {
    let script = Browser { console: team.peer(name).console.unwrap(), cookie: None };
    let secret = format!("Authorization: Bearer {}\r\n", token(team, name));
    let metrics = script.send("GET /metrics", &secret, "");
    let line = metrics.body.lines().find_map(|line| line.strip_prefix("roost_served_bytes_total "));
    line.unwrap_or_else(|| panic!("{}: {}", metrics.head, metrics.body)).parse().unwrap()
}
