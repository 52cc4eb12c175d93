package model

// Config is the architecture and the calibration of a model, as its
// manifest gives them.
type Config struct {
	D       int // width of pyramid, queries and text tokens
	DM      int // width of the mask features
	Heads   int // attention heads
	Queries int // Q
	Layers  int // decoder layers
	Size    int // long side of the encoded picture, in pixels
	PMP     bool

	Text TextConfig

	// The second stage: see secondStage.
	Alpha, Beta float32 // its share for trained and for other names
	Keep        float32 // what the class head keeps of that share, from 0 to 1
	Cap         float32 // the P at which proposals are told apart for names that were never trained, 1 as they are: see capped
	Kappa, B0   float32 // scale and offset of its cosine
	SeenHi      float32 // similarity from which a phrase counts as trained
	SeenLo      float32 // similarity up to which it counts as unseen
	Theta       float32 // default threshold of masks
	Presence    Presence
	Contrast    Contrast
	Edges       float32  // epsilon of the guided filter by which masks follow the picture's edges, 0 without
	Templates   []string // "{}" stands for the phrase
	Rows        int      // names known to the second stage
	Space       int      // numbers in which it compares names; Text.Embedding if it compares embeddings themselves
	Rank        int      // rank of its coefficients
	Trained     int      // number of trained names
}

// TextConfig is the shape of the text encoder.
type TextConfig struct {
	Width, Heads, FFN, Layers int
	Vocab, Rank               int // word embeddings are Vocab×Rank times Rank×Width
	MaxTokens                 int
	Embedding                 int  // width of what becomes of a text
	CLIP                      bool // it is CLIP's: a token sees those before it, and the last one counts
	QuickGelu                 bool
}

// Presence maps what the network says of a prompt to the score that a
// person reads: logistic regression on the logits of the best query's
// probability and of the map's peak, on the logarithm of the number of
// prompts, on the logit of the best query's probability beside Contrast, and on
// the second stage's share, since names that were never trained get smaller
// probabilities where they are right.
type Presence struct {
	Bias, Logit, Peak, Prompts, Contrast, Share float32
}

// Contrast holds common names that a picture is also asked for beside the
// prompts, only to judge whether these are there: an absent thing that wins
// where it is asked for alone loses against things that are there. Names whose
// cosine with a phrase is Below or more are left out, since they may be the
// same thing. Without names there is no such question, nor where there are more
// prompts than Most: these are common names enough for one another.
type Contrast struct {
	Names []string
	Below float32
	Most  int
}

// The trunk's stages: kernel size, stride of the first block, expansion,
// output channels, blocks. EfficientNet-Lite0.
var trunkStages = []struct{ size, stride, expand, out, blocks int }{
	{3, 1, 1, 16, 1},
	{3, 2, 6, 24, 2},
	{5, 2, 6, 40, 2},
	{3, 2, 6, 80, 3},
	{5, 1, 6, 112, 3},
	{5, 2, 6, 192, 4},
	{3, 1, 6, 320, 1},
}

const (
	stemChannels  = 32
	trunkFeatures = 1280 // channels of the trunk's head
	cellSize      = 32   // the coarsest stride
)

// levels are the strides that decoder layers attend to, in turn.
var levels = [...]int{32, 16, 8}
