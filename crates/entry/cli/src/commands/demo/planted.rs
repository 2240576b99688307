//! Secrets that somebody pastes by mistake. Each is put together at run time, so that no text that looks like one stands in
//! the source; none of them was ever in use.

/// What is planted, and the rule that must find it.
pub struct Planted {
    pub name: &'static str,
    pub rule: &'static str,
    pub value: String,
}

/// An AWS key, a GitHub token, a private key.
pub fn all() -> Vec<Planted> {
    let key = ["5Krp0R6uv1Czb3URj1MkPwX", "ka7eVzTXR9pKO2jJckLPxfb7bsV0Hd9oI22jC8fq"].join("+");
    let [begin, end] = ["BEGIN", "END"].map(|word| ["-----", word, " PRIVATE ", "KEY-----"].concat());
    vec![
        Planted {
            name: "an AWS key",
            rule: "aws-access-key-id",
            value: ["AKIA", "C6O6OYA7", "VNGCNGSU"].concat(),
        },
        Planted {
            name: "a GitHub token",
            rule: "github-token",
            value: ["ghp", "_", "3ZVIGnsAStUt8ew15Jep", "rBYZcVxhLM0PPH3g"].concat(),
        },
        Planted { name: "a private key", rule: "private-key", value: [begin, key, end].join("\n") },
    ]
}
