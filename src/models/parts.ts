/** Models in several files, as `gguf-split` writes them: `name-00001-of-00003.gguf` and so on. llama.cpp is given the first,
 * and finds the others beside it. */
const PART = /^(.*)-(\d{5})-of-(\d{5})(\.gguf)$/i

/** All files of the model that this one belongs to, the first one first; itself where it is whole. */
export function partsOf(path: string): [string, ...string[]] {
  const [, stem, , of, end] = PART.exec(path) ?? []
  const count = Number(of)
  if (stem === undefined || !(count >= 1)) return [path]
  const part = (number: number) => `${stem}-${String(number).padStart(5, "0")}-of-${of}${end}`
  return [part(1), ...Array.from({ length: count - 1 }, (_, i) => part(i + 2))]
}

/** The name of a model's file without its end, and without its number. */
export function nameOf(file: string): string {
  return file.replace(PART, "$1$4").replace(/\.gguf$/i, "")
}
