/** The response of /v1/embeddings, as OpenAI's, with how each input's SLO went. */
import { userError } from "../errors.ts"
import type { ResolvedSlo } from "../serve/slo-resolve.ts"
import type { AnswerDelta } from "../text/answer.ts"
import type { Finished, Format } from "./format.ts"
import { metricsJson, serviceTier } from "./result.ts"

export interface EmbeddingFormatOptions {
  model: string
  slo: ResolvedSlo
  /** Little-endian floats of 32 bits in base64, instead of a list of numbers. */
  base64: boolean
}

export class EmbeddingFormat implements Format {
  readonly #options: EmbeddingFormatOptions

  constructor(options: EmbeddingFormatOptions) {
    this.#options = options
  }

  // Nothing of it is streamed.
  opening(): string {
    return ""
  }
  chunk(): string {
    return ""
  }
  closing(): string {
    return ""
  }
  last(): string {
    return ""
  }
  failure(): string {
    return ""
  }

  whole(all: readonly AnswerDelta[], ends: readonly Finished[]): object {
    const { model, slo } = this.#options
    const metrics = ends.map((end) => metricsJson(end.outcome, slo, end.usage, end.delivered))
    const promptTokens = ends.reduce((sum, { usage }) => sum + usage.promptTokens, 0)
    const alone = ends.length === 1
    return {
      object: "list",
      data: all.map((one, index) => ({
        ...{ object: "embedding", index, embedding: this.#vector(one) },
        ...(!alone && { metrics: metrics[index] }),
      })),
      model,
      usage: { prompt_tokens: promptTokens, total_tokens: promptTokens },
      service_tier: serviceTier(
        ends.map(({ outcome }) => outcome),
        slo,
      ),
      ...(alone && { metrics: metrics[0] }),
    }
  }

  #vector({ embedding }: AnswerDelta): string | number[] {
    if (embedding === undefined)
      throw userError("engine_failed", { detail: "its replica computes no embeddings: update it" })
    if (this.#options.base64) return Buffer.from(embedding).toString("base64")
    return [...new Float32Array(Uint8Array.from(embedding).buffer)]
  }
}
