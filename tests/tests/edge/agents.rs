//! The agent strings that scanners and old clients publish, on the site from outside.

use super::{CHROME, behind_proxy, from};
use crate::http::Client;
use crate::stores;
use reqwest::Method;

/// One for each needle of the table, as its makers write it.
const PUBLISHED: [&str; 26] = [
    "masscan/1.3 (https://github.com/robertdavidgraham/masscan)",
    "Mozilla/5.0 (compatible; Nmap Scripting Engine; https://nmap.org/book/nse.html)",
    "Mozilla/5.00 (Nikto/2.1.6) (Evasions:None) (Test:Port Check)",
    "sqlmap/1.8#stable (https://sqlmap.org)",
    "Mozilla/4.0 (compatible; MSIE 7.0; Windows NT 5.1; SV1; .NET CLR 2.0.50727) Havij",
    "Mozilla/5.0 (compatible; Acunetix Web Vulnerability Scanner)",
    "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 5.1; Trident/4.0; Nessus SOAP v0.0.1)",
    "Mozilla/5.0 [en] (X11, U; OpenVAS-VT 21.4.3)",
    "Mozilla/4.0 (compatible; MSIE 8.0; Windows NT 5.1; Trident/4.0; w3af.org)",
    "Mozilla/5.0 (compatible; Metasploit RSPEC)",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) BurpSuite Professional",
    "Mozilla/5.0 (compatible; OWASP ZAP/2.14.0)",
    "Mozilla/5.0 zgrab/0.x",
    "Mozilla/5.0 (compatible; CensysInspect/1.1; +https://about.censys.io/)",
    "Mozilla/5.0 (compatible; Shodan/1.0; +https://www.shodan.io/)",
    "Expanse, a Palo Alto Networks company, searches across the global IPv4 space multiple times per day",
    "Hello, find out more about our scans in https://docs-cortex.example.com/Scanning-activity",
    "Mozilla/5.0 (compatible; Xpanse/1.0; scanning activity)",
    "probe-image-size/7.2.3 (+https://github.com/nodeca/probe-image-size)",
    "libredtail-http",
    "Apache-HttpClient/4.5.13 (Java 1.8.0_292)",
    "Mozilla/5.0 (compatible; HttpUnit/1.7)",
    "Java/1.8.0_292",
    "Mozilla/5.0 (compatible; WP-HTTP/6.4.2)",
    "Mozilla/5.0 (compatible; WP-Cron/6.4.2)",
    "WordPress/6.4.2; https://blog.example.com",
];

#[tokio::test]
async fn case_11_the_published_agents_of_scanners_get_no_page() {
    let server = behind_proxy(stores::sqlite()).without_limits().start().unwrap();
    let client = Client::new(&server);
    let others =
        ["Mozilla/5.0", "curl/7.88.1", "Wget/1.21.3", "python-requests/2.32.3", "Go-http-client/2.0", "Ruby"];
    for agent in PUBLISHED.into_iter().chain(others) {
        for path in ["/", "/docs/start"] {
            let answer = from(&client, "203.0.113.21", path, &[("user-agent", agent)]).await;
            let reason = answer.header("x-blocked-reason");
            assert_eq!((answer.status, reason), (403, "scanner-agent"), "{agent} on {path}: {}", answer.body);
            assert_eq!(answer.header("set-cookie"), "");
        }
        // What programs call is open to any of them.
        let answer = from(&client, "203.0.113.21", "/health", &[("user-agent", agent)]).await;
        assert_eq!(answer.status, 200, "{agent}");
    }
    // The test's client sends no agent unless it is told one.
    let none = from(&client, "203.0.113.21", "/", &[]).await;
    assert_eq!((none.status, none.header("x-blocked-reason")), (403, "scanner-agent"));
    let today = format!("{CHROME}156.0.0.0 Safari/537.36");
    assert_eq!(from(&client, "203.0.113.21", "/docs/start", &[("user-agent", &today)]).await.status, 404);
    assert_eq!(from(&client, "203.0.113.21", "/", &[("user-agent", &today)]).await.status, 200);
    // Programs ask the root whether somebody is there.
    let head = [("x-forwarded-for", "203.0.113.21"), ("user-agent", "curl/7.88.1")];
    assert_eq!(client.send(Method::HEAD, "/", &head, None).await.unwrap().status, 200);
}
