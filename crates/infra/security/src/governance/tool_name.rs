//! Names of tools. A coding agent calls the tool `t` of server `s` `mcp__s__t`; the MCP proxy sees `t` at server `s`.
//! Policies see both alike, so that a call gets the same answer at every door.

/// A tool as policies compare it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ToolName<'a> {
    /// As the caller named it.
    pub(super) given: &'a str,
    pub(super) server: Option<&'a str>,
    /// Without the server.
    pub(super) tool: &'a str,
}

impl<'a> ToolName<'a> {
    pub(super) fn new(given: &'a str, server: Option<&'a str>) -> Self {
        if let Some((named, tool)) = given.strip_prefix("mcp__").and_then(|rest| rest.split_once("__")) {
            return Self { given, server: server.or(Some(named)), tool };
        }
        Self { given, server, tool: given }
    }

    /// `mcp__<server>__<tool>`, or the plain name of a tool that is of no server.
    pub(super) fn qualified(&self) -> String {
        match self.server {
            Some(server) => format!("mcp__{server}__{}", self.tool),
            None => self.given.to_owned(),
        }
    }

    /// Whether a configured name means this tool: `tool`, `server/tool` or `mcp__server__tool`.
    pub(super) fn is(&self, name: &str) -> bool {
        let of_server =
            || name.split_once('/').is_some_and(|(s, t)| Some(s) == self.server && t == self.tool);
        name == self.given || name == self.tool || of_server() || name == self.qualified()
    }
}

/// Whether `name` fits `pattern`, in which `*` stands for any text.
pub(super) fn fits(pattern: &str, name: &str) -> bool {
    let mut parts = pattern.split('*');
    let Some(rest) = parts.next().and_then(|first| name.strip_prefix(first)) else { return false };
    let mut rest = rest;
    let mut parts: Vec<&str> = parts.collect();
    let Some(last) = parts.pop() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = rest.get(at + part.len()..).unwrap_or_default(),
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tool_is_known_under_each_of_its_names() {
        let hook = ToolName::new("mcp__crm__get_customer", None);
        let proxy = ToolName::new("get_customer", Some("crm"));
        for name in ["get_customer", "crm/get_customer", "mcp__crm__get_customer"] {
            assert!(hook.is(name) && proxy.is(name), "{name}");
        }
        for name in ["customer", "hr/get_customer", "mcp__hr__get_customer", "crm/get"] {
            assert!(!hook.is(name) && !proxy.is(name), "{name}");
        }
        assert_eq!(hook.qualified(), proxy.qualified());
        assert_eq!(ToolName::new("Bash", None).qualified(), "Bash");
    }

    #[test]
    fn a_star_stands_for_any_text() {
        for (pattern, name, want) in [
            ("mcp__crm__*", "mcp__crm__get", true),
            ("mcp__crm__*", "mcp__hr__get", false),
            ("*delete*", "bulk_delete_all", true),
            ("*_admin", "crm_admin", true),
            ("*_admin", "crm_admin_x", false),
            ("a*b*c", "a-b-c", true),
            ("a*b*c", "acb", false),
            ("ab*ba", "aba", false),
            ("Bash", "Bash", true),
            ("Bash", "Bash2", false),
            ("*", "", true),
        ] {
            assert_eq!(fits(pattern, name), want, "{pattern} {name}");
        }
    }
}
