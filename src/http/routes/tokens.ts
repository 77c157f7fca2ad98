/** POST /tokenize and /detokenize, as vLLM and llama-server have them, GET /tokenizer_info and /version. */
import { readFileSync } from "node:fs"
import type { FastifyInstance, FastifyReply, FastifyRequest } from "fastify"
import { UserError, userError } from "../../errors.ts"
import type { Prompt } from "../../replica/generation.ts"
import type { Service, ServiceHost } from "../../serve/service.ts"
import type { TokenReader } from "../../serve/token-reader.ts"
import { validate } from "../body.ts"
import { plainMessage } from "../chat-generation.ts"
import { spelt } from "../logprob-columns.ts"
import { classOfModel } from "../model-names.ts"
import { watchClient } from "../presence.ts"
import { detokenizeSchema, type TokenizeBody, tokenizeSchema } from "../token-schemas.ts"

export const { version } = JSON.parse(
  readFileSync(new URL("../../../package.json", import.meta.url), "utf8"),
) as { version: string }

export function tokenRoutes(app: FastifyInstance, ready: () => Service, host: ServiceHost): void {
  app.post("/tokenize", async (request, reply) => {
    const service = ready()
    const body = validate(tokenizeSchema, request.body)
    classOfModel(service, body.model)
    const reader = readerOf(service, "/tokenize")
    const { number: tenant } = host.tenant(request.tenant)
    const tokens = await reader.read({ ...askedBy(body), tenant, signal: signalOf(request, reply) })
    return tokenizeJson(body, [...(tokens ?? [])], service, reader)
  })

  app.post("/detokenize", async (request) => {
    const service = ready()
    const { model, tokens } = validate(detokenizeSchema, request.body)
    classOfModel(service, model)
    const reader = readerOf(service, "/detokenize")
    const unknown = tokens.findIndex((token) => !reader.has(token))
    if (unknown >= 0) {
      const { vocabSize } = service.front.model
      throw wrong(`tokens[${unknown}]`, `the model's vocabulary has ${vocabSize} tokens`)
    }
    const bytes = tokens.map((token) => {
      const { bytes: own, control } = reader.spelling(token)
      return control === undefined ? own : Buffer.from(control)
    })
    const text = Buffer.concat(bytes).toString("utf8")
    // vLLM's name, and llama-server's.
    return { prompt: text, content: text }
  })

  // What evaluation harnesses read before they tokenize here.
  app.get("/tokenizer_info", async () => {
    const service = ready()
    readerOf(service, "/tokenizer_info")
    const { bosText, eosText, chatTemplate, vocabSize } = service.front.model
    return {
      bos_token: bosText || null,
      eos_token: eosText || null,
      chat_template: chatTemplate,
      vocab_size: vocabSize,
      model_max_length: service.front.contextTokens,
    }
  })

  app.get("/version", async () => ({ version }))
}

function readerOf({ front }: Service, what: string): TokenReader {
  if (front.tokens !== null) return front.tokens
  throw userError("not_supported_here", {
    what,
    why: "it is a gateway, and prompts become tokens behind it",
    instead: "Ask a replica itself.",
  })
}

function askedBy(body: TokenizeBody): { prompt: Prompt; parseSpecial: boolean | null; addBos: boolean } {
  const { messages, prompt, content, parse_special: parseSpecial = null } = body
  const given = { messages, prompt, content }
  const [first, second] = Object.entries(given).filter(([, value]) => value !== undefined && value !== null)
  if (first === undefined) throw wrong("prompt", "it is required, or messages, or content")
  if (second !== undefined) throw wrong(second[0], `leave it out, or ${first[0]}`)
  if (messages) {
    if (body.add_special_tokens)
      throw wrong("add_special_tokens", "the chat template sets what begins a prompt")
    return { prompt: chatPrompt(body, messages), parseSpecial, addBos: true }
  }
  if (typeof prompt === "string")
    return { prompt: { kind: "text", text: prompt }, parseSpecial, addBos: body.add_special_tokens ?? true }
  // llama-server's defaults.
  const text = { kind: "text" as const, text: content! }
  return { prompt: text, parseSpecial, addBos: body.add_special ?? false }
}

function chatPrompt(body: TokenizeBody, messages: NonNullable<TokenizeBody["messages"]>): Prompt {
  const tools = body.tools && body.tools.length > 0 ? body.tools : null
  const goesOn = body.continue_final_message === true
  if (body.add_generation_prompt === false && !goesOn)
    throw wrong("add_generation_prompt", "false is supported with 'continue_final_message': true only")
  if (goesOn && messages.at(-1)!.role !== "assistant")
    throw wrong("continue_final_message", "the last message is not the assistant's")
  const variables = body.chat_template_kwargs ?? {}
  return {
    ...{ kind: "chat", messages: messages.map(plainMessage), tools, variables },
    ...(goesOn && { goesOn }),
  }
}

function tokenizeJson(body: TokenizeBody, tokens: number[], { front }: Service, reader: TokenReader): object {
  const piece = (token: number) => spelt(reader.spelling(token))
  if (typeof body.content === "string")
    return { tokens: body.with_pieces ? tokens.map((id) => ({ id, piece: pieceOf(reader, id) })) : tokens }
  return {
    count: tokens.length,
    max_model_len: front.contextTokens,
    tokens,
    token_strs: body.return_token_strs ? tokens.map(piece) : null,
  }
}

/** llama-server tells the bytes of what is no whole character. */
function pieceOf(reader: TokenReader, token: number): string | number[] {
  const spelling = reader.spelling(token)
  const text = spelt(spelling)
  return text.startsWith("bytes:") && spelling.control === undefined ? [...spelling.bytes] : text
}

function signalOf(request: FastifyRequest, reply: FastifyReply): AbortSignal {
  const abort = new AbortController()
  watchClient(reply.raw, abort, () => {})
  request.raw.once("error", () => abort.abort())
  return abort.signal
}

function wrong(param: string, why: string): UserError {
  return new UserError(`Invalid '${param}': ${why}.`, { code: "invalid_value", param })
}
