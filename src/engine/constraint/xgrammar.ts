/** XGrammar, the grammar engine of vLLM and SGLang, as WebAssembly. Its bundle is CommonJS in a package that says it
 * is a module: neither `import` nor `require` can load it, so its text is compiled as what it is. */
import { readFileSync } from "node:fs"
import Module, { createRequire } from "node:module"

export type XGrammar = typeof import("@mlc-ai/web-xgrammar")

/** What `require` does with the text of a file. */
type CommonJs = Module & { _compile(text: string, path: string): void }

/** Loads the library into this thread. */
export function loadXGrammar(): XGrammar {
  const path = createRequire(import.meta.url).resolve("@mlc-ai/web-xgrammar")
  const module = new Module(path) as CommonJs
  module.filename = path
  module._compile(readFileSync(path, "utf8"), path)
  return module.exports as XGrammar
}
