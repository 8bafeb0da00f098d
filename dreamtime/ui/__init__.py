"""The page, its API and its MCP tools: everything people and programs see through Gradio."""
