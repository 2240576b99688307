-- Where arguments and answer are: `<ledger id>/<role>`.
ALTER TABLE mcp_tool_executions ADD COLUMN input_payload TEXT;
ALTER TABLE mcp_tool_executions ADD COLUMN output_payload TEXT;
