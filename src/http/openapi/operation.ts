/** What is said of a route. */
import type { z } from "zod"
import type { ErrorCode } from "../../errors.ts"
import type { Protected } from "../protectable.ts"

export interface Parameter {
  name: string
  in: "header" | "query" | "path"
  description: string
  schema: z.ZodType
  /** Paths' always are. */
  required?: boolean
  example?: string | number
}

export interface Operation {
  method: "get" | "post" | "delete"
  /** As OpenAPI writes it. */
  path: string
  /** As the server's table of routes has it; left out: the path. */
  route?: string
  /** Unique: clients are named after it. */
  id: string
  tag: Tag
  summary: string
  description?: string
  parameters?: readonly Parameter[]
  body?: { schema: z.ZodType; examples: Readonly<Record<string, Example>> }
  /** What a 200 is, by media type; a stream is what each of its events has. */
  answers: Readonly<Record<string, z.ZodType>>
  errors: readonly ErrorCode[]
  /** Of its errors: Anthropic's. */
  anthropic?: boolean
  /** What a server must have, or it has no such route. */
  needs?: Needs
  /** Which key it wants, where there are keys: the API's, that of a part that an operator protects, or none. */
  key: "api" | Protected | "none"
}

/** A planner generates nothing, a gateway has no tokens, an engine may compute no embeddings. */
export type Needs = "generation" | "tokens" | "embeddings"

export interface Example {
  summary: string
  value: object
}

export const TAGS = {
  generation: "Answers of the model, each with its latency objectives.",
  tokens: "What prompts are made of.",
  models: "Models, and SLO classes as models.",
  slo: "How objectives are kept, and why not.",
  operation: "For whatever operates the server.",
} as const
export type Tag = keyof typeof TAGS
