/** A conversation as a template is given it. */

/** A chat message in OpenAI's shape; content parts are flattened before. */
export interface ChatMessage {
  role: string
  content: string | null
  name?: string
  reasoning_content?: string
  tool_calls?: { id?: string; type?: string; function: { name: string; arguments: unknown } }[]
  tool_call_id?: string
}

export interface ChatPrompt {
  messages: readonly ChatMessage[]
  tools: readonly unknown[] | null
  /** Template variables of the request (`chat_template_kwargs`). */
  variables: Readonly<Record<string, unknown>>
  /** The answer goes on with the last message, which is the assistant's. */
  goesOn?: boolean
}
