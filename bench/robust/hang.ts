/** Loaded before a server (`node --import`), to see what becomes of it: SIGUSR2 makes steps of llama.cpp hang, the one in
 * progress included; another one lets them end. */
import { LlamaEngine } from "../../src/engine/llama/engine.ts"

const { execute } = LlamaEngine.prototype
let letGo: (() => void) | null = null
let held: Promise<void> = Promise.resolve()

LlamaEngine.prototype.execute = async function (batch) {
  const output = await execute.call(this, batch)
  await held
  return output
}

process.on("SIGUSR2", () => {
  if (letGo === null) {
    held = new Promise((resolve) => {
      letGo = resolve
    })
  } else {
    letGo()
    letGo = null
    held = Promise.resolve()
  }
})
