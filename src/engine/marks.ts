/** Control tokens that are part of an answer's text: they stand around thoughts and tool calls. */
export const SHOWN_MARKS: readonly string[] = [
  ...["<think>", "</think>", "<tool_call>", "</tool_call>"],
  ...["[TOOL_CALLS]", "[ARGS]", "[CALL_ID]", "<|python_tag|>"],
  ...[
    "<｜tool▁calls▁begin｜>",
    "<｜tool▁calls▁end｜>",
    "<｜tool▁call▁begin｜>",
    "<｜tool▁call▁end｜>",
    "<｜tool▁sep｜>",
  ],
  ...["<|start|>", "<|channel|>", "<|message|>", "<|constrain|>", "<|end|>", "<|call|>", "<|return|>"],
]
