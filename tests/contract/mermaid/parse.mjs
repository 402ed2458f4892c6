// Reads a JSON list of Mermaid sources from stdin; answers with a list of null (it parses) or Mermaid's own error.
// Mermaid cleans labels with DOMPurify, which needs a document: jsdom's, there before Mermaid is loaded.
import { JSDOM } from "jsdom";

const { window } = new JSDOM("");
Object.assign(globalThis, { window, document: window.document });
const { default: mermaid } = await import("mermaid");

let input = "";
for await (const chunk of process.stdin) input += chunk;

const answers = [];
for (const source of JSON.parse(input)) {
  try {
    await mermaid.parse(source);
    answers.push(null);
  } catch (error) {
    answers.push(String(error));
  }
}
process.stdout.write(JSON.stringify(answers));
