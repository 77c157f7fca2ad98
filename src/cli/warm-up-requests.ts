/** Made-up requests for a process to warm up on (warm-up.ts), and how many of them. */

/** More change little: what runs often is compiled. */
const MOST_REQUESTS = 150
/** So that batches have several. */
const AT_ONCE = 2
export const OUTPUT_TOKENS = 8
export const TTFT_MS = 10_000
export const TPOT_MS = 1000
const WORDS = "the quick brown fox jumps over the lazy dog while it rains in the hills ".repeat(6)

/** Takes `forMs`, or less, or as long as the first ones; resolves with how many requests it was. */
export async function often(forMs: number, run: (n: number) => Promise<unknown>): Promise<number> {
  const endMs = performance.now() + forMs
  let count = 0
  while (count < MOST_REQUESTS && (count === 0 ? forMs > 0 : performance.now() < endMs)) {
    await Promise.all(Array.from({ length: AT_ONCE }, (_, i) => run(count + i)))
    count += AT_ONCE
  }
  return count
}

/** Of every kind that is common, in turn. */
export function bodyOf(n: number): { path: string; body: object; stream: boolean } {
  const slo = { ttft_ms: TTFT_MS, tpot_ms: TPOT_MS }
  const stream = n % 4 < 3
  const common = { max_tokens: OUTPUT_TOKENS, temperature: 0, ignore_eos: true, slo, stream }
  if (n % 2 === 0) return { path: "/v1/completions", body: { ...common, prompt: tokensOf(n) }, stream }
  return { path: "/v1/chat/completions", body: { ...common, messages: messagesOf(n) }, stream }
}

export function tokensOf(n: number): number[] {
  return Array.from({ length: 16 + ((n * 167) % 400) }, (_, i) => 32 + ((n * 31 + i * 7) % 224))
}

export function messagesOf(n: number) {
  return [{ role: "user", content: WORDS.slice(0, 20 + ((n * 67) % 400)) }]
}
