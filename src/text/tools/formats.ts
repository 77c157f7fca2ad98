/** The ways in which models write tool calls, and which one a model's chat template speaks. */
import { DEEPSEEK, DEEPSEEK_OLD } from "./deepseek.ts"
import type { ToolFormat } from "./format.ts"
import { HARMONY } from "./harmony.ts"
import { HERMES } from "./hermes.ts"
import { LLAMA } from "./llama.ts"
import { MISTRAL, MISTRAL_LIST } from "./mistral.ts"
import { QWEN_CODER } from "./qwen-coder.ts"

export const FORMATS: readonly ToolFormat[] = [
  ...[HARMONY, QWEN_CODER, HERMES],
  ...[MISTRAL, MISTRAL_LIST, DEEPSEEK_OLD, DEEPSEEK, LLAMA],
]

/** What models are told to write whose template says nothing that is known here. */
export const GENERIC = HERMES

/** The way that a chat template speaks; null: none that is known here. */
export function nativeFormat(template: string | null): ToolFormat | null {
  return (template !== null && FORMATS.find((format) => format.fits(template))) || null
}

/** The way in which a model with this template writes its calls. */
export function formatOf(template: string | null): ToolFormat {
  return nativeFormat(template) ?? GENERIC
}
