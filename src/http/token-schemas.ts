/** Bodies of /tokenize and /detokenize: vLLM's, and llama-server's by its own name for the text (`content`). */
import { z } from "zod"
import { listOf } from "./lists.ts"
import { anyObject, message, toolList } from "./schemas.ts"

const text = z.string()
const flag = z.boolean().nullish()

export const tokenizeSchema = z.object({
  model: text.nullish(),
  prompt: text.nullish(),
  messages: listOf(message, 1).nullish(),
  content: text.nullish(),
  add_special_tokens: flag,
  add_special: flag,
  parse_special: flag,
  return_token_strs: flag,
  with_pieces: flag,
  add_generation_prompt: flag,
  continue_final_message: flag,
  tools: toolList.nullish(),
  chat_template_kwargs: anyObject.nullish(),
})
export type TokenizeBody = z.output<typeof tokenizeSchema>

export const detokenizeSchema = z.object({
  model: text.nullish(),
  tokens: z.array(z.int().min(0)).max(1_000_000),
})
