package huggingface

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pmp-seg/pmp/internal/checkpointtest"
	"github.com/pmp-seg/pmp/weights/quantize"
)

// theirNames are detectron2's for what transformers has, in the order in which they are
// tried. In # is a number, and in what follows the #s are those numbers again.
var theirNames = map[string][][2]string{
	"both": {
		{"model.pixel_level_module.encoder.embedder.embedder.convolution.*", "backbone.stem.conv1.*"},
		{"model.pixel_level_module.encoder.embedder.embedder.normalization.*", "backbone.stem.conv1.norm.*"},
		{"model.pixel_level_module.encoder.encoder.stages.#.layers.#.shortcut.convolution.*", "backbone.res#+2.#.shortcut.*"},
		{"model.pixel_level_module.encoder.encoder.stages.#.layers.#.shortcut.normalization.*", "backbone.res#+2.#.shortcut.norm.*"},
		{"model.pixel_level_module.encoder.encoder.stages.#.layers.#.layer.#.convolution.*", "backbone.res#+2.#.conv#+1.*"},
		{"model.pixel_level_module.encoder.encoder.stages.#.layers.#.layer.#.normalization.*", "backbone.res#+2.#.conv#+1.norm.*"},
		{"model.pixel_level_module.encoder.embeddings.patch_embeddings.projection.*", "backbone.patch_embed.proj.*"},
		{"model.pixel_level_module.encoder.embeddings.norm.*", "backbone.patch_embed.norm.*"},
		{"model.pixel_level_module.encoder.encoder.layers.#.blocks.#.layernorm_before.*", "backbone.layers.#.blocks.#.norm1.*"},
		{"model.pixel_level_module.encoder.encoder.layers.#.blocks.#.layernorm_after.*", "backbone.layers.#.blocks.#.norm2.*"},
		{"model.pixel_level_module.encoder.encoder.layers.#.blocks.#.attn_qkv_*", "backbone.layers.#.blocks.#.attn.qkv.*"},
		{"model.pixel_level_module.encoder.encoder.layers.#.blocks.#.attention.self.relative_position_bias_table", "backbone.layers.#.blocks.#.attn.relative_position_bias_table"},
		{"model.pixel_level_module.encoder.encoder.layers.#.blocks.#.attention.output.dense.*", "backbone.layers.#.blocks.#.attn.proj.*"},
		{"model.pixel_level_module.encoder.encoder.layers.#.blocks.#.intermediate.dense.*", "backbone.layers.#.blocks.#.mlp.fc1.*"},
		{"model.pixel_level_module.encoder.encoder.layers.#.blocks.#.output.dense.*", "backbone.layers.#.blocks.#.mlp.fc2.*"},
		{"model.pixel_level_module.encoder.encoder.layers.#.downsample.*", "backbone.layers.#.downsample.*"},
		{"model.pixel_level_module.encoder.hidden_states_norms.stage#.*", "backbone.norm#-1.*"},
		{"model.pixel_level_module.decoder.mask_projection.*", "sem_seg_head.pixel_decoder.mask_features.*"},
		{"model.transformer_module.queries_embedder.*", "sem_seg_head.predictor.query_embed.*"},
		{"class_predictor.*", "sem_seg_head.predictor.class_embed.*"},
		{"criterion.*", "criterion.*"},
	},
	"mask2former": {
		{"model.pixel_level_module.decoder.level_embed", "sem_seg_head.pixel_decoder.transformer.level_embed"},
		{"model.pixel_level_module.decoder.encoder.layers.#.self_attn.*", "sem_seg_head.pixel_decoder.transformer.encoder.layers.#.self_attn.*"},
		{"model.pixel_level_module.decoder.encoder.layers.#.self_attn_layer_norm.*", "sem_seg_head.pixel_decoder.transformer.encoder.layers.#.norm1.*"},
		{"model.pixel_level_module.decoder.encoder.layers.#.final_layer_norm.*", "sem_seg_head.pixel_decoder.transformer.encoder.layers.#.norm2.*"},
		{"model.pixel_level_module.decoder.encoder.layers.#.fc#.*", "sem_seg_head.pixel_decoder.transformer.encoder.layers.#.linear#.*"},
		{"model.pixel_level_module.decoder.input_projections.#.#.*", "sem_seg_head.pixel_decoder.input_proj.#.#.*"},
		{"model.pixel_level_module.decoder.adapter_1.0.*", "sem_seg_head.pixel_decoder.adapter_1.*"},
		{"model.pixel_level_module.decoder.adapter_1.1.*", "sem_seg_head.pixel_decoder.adapter_1.norm.*"},
		{"model.pixel_level_module.decoder.layer_1.0.*", "sem_seg_head.pixel_decoder.layer_1.*"},
		{"model.pixel_level_module.decoder.layer_1.1.*", "sem_seg_head.pixel_decoder.layer_1.norm.*"},
		{"model.transformer_module.queries_features.*", "sem_seg_head.predictor.query_feat.*"},
		{"model.transformer_module.level_embed.*", "sem_seg_head.predictor.level_embed.*"},
		{"model.transformer_module.decoder.layernorm.*", "sem_seg_head.predictor.decoder_norm.*"},
		{"model.transformer_module.decoder.mask_predictor.mask_embedder.#.0.*", "sem_seg_head.predictor.mask_embed.layers.#.*"},
		{"model.transformer_module.decoder.layers.#.self_attn.*", "sem_seg_head.predictor.transformer_self_attention_layers.#.self_attn.*"},
		{"model.transformer_module.decoder.layers.#.self_attn_layer_norm.*", "sem_seg_head.predictor.transformer_self_attention_layers.#.norm.*"},
		{"model.transformer_module.decoder.layers.#.cross_attn.*", "sem_seg_head.predictor.transformer_cross_attention_layers.#.multihead_attn.*"},
		{"model.transformer_module.decoder.layers.#.cross_attn_layer_norm.*", "sem_seg_head.predictor.transformer_cross_attention_layers.#.norm.*"},
		{"model.transformer_module.decoder.layers.#.fc#.*", "sem_seg_head.predictor.transformer_ffn_layers.#.linear#.*"},
		{"model.transformer_module.decoder.layers.#.final_layer_norm.*", "sem_seg_head.predictor.transformer_ffn_layers.#.norm.*"},
	},
	"maskformer": {
		{"model.pixel_level_module.decoder.fpn.stem.0.*", "sem_seg_head.pixel_decoder.layer_4.*"},
		{"model.pixel_level_module.decoder.fpn.stem.1.*", "sem_seg_head.pixel_decoder.layer_4.norm.*"},
		{"model.pixel_level_module.decoder.fpn.layers.#.proj.0.*", "sem_seg_head.pixel_decoder.adapter_3-#.*"},
		{"model.pixel_level_module.decoder.fpn.layers.#.proj.1.*", "sem_seg_head.pixel_decoder.adapter_3-#.norm.*"},
		{"model.pixel_level_module.decoder.fpn.layers.#.block.0.*", "sem_seg_head.pixel_decoder.layer_3-#.*"},
		{"model.pixel_level_module.decoder.fpn.layers.#.block.1.*", "sem_seg_head.pixel_decoder.layer_3-#.norm.*"},
		{"model.transformer_module.input_projection.*", "sem_seg_head.predictor.input_proj.*"},
		{"mask_embedder.#.0.*", "sem_seg_head.predictor.mask_embed.layers.#.*"},
		{"model.transformer_module.decoder.layernorm.*", "sem_seg_head.predictor.transformer.decoder.norm.*"},
		{"model.transformer_module.decoder.layers.#.self_attn.*", "sem_seg_head.predictor.transformer.decoder.layers.#.self_attn.*"},
		{"model.transformer_module.decoder.layers.#.encoder_attn.*", "sem_seg_head.predictor.transformer.decoder.layers.#.multihead_attn.*"},
		{"model.transformer_module.decoder.layers.#.self_attn_layer_norm.*", "sem_seg_head.predictor.transformer.decoder.layers.#.norm1.*"},
		{"model.transformer_module.decoder.layers.#.encoder_attn_layer_norm.*", "sem_seg_head.predictor.transformer.decoder.layers.#.norm2.*"},
		{"model.transformer_module.decoder.layers.#.final_layer_norm.*", "sem_seg_head.predictor.transformer.decoder.layers.#.norm3.*"},
		{"model.transformer_module.decoder.layers.#.fc#.*", "sem_seg_head.predictor.transformer.decoder.layers.#.linear#.*"},
	},
}

// theirName is what detectron2 calls a tensor.
func theirName(t *testing.T, arch, name string) string {
	t.Helper()
	arch, _, _ = strings.Cut(arch, "-")
	for _, rule := range slices.Concat(theirNames["both"], theirNames[arch]) {
		pattern := strings.NewReplacer("#", `(\d)`, `\*`, "(.*)").Replace(regexp.QuoteMeta(rule[0]))
		found := regexp.MustCompile("^" + pattern + "$").FindStringSubmatch(name)
		if found == nil {
			continue
		}
		theirs := rule[1]
		for _, part := range found[1:] { // numbers, and what follows
			mark := "#"
			if !strings.Contains(theirs, mark) {
				mark = "*"
			}
			theirs = strings.Replace(theirs, mark, part, 1)
		}
		for digit := range 4 { // sums of a digit
			theirs = strings.NewReplacer(fmt.Sprintf("%d+2", digit), fmt.Sprint(digit+2), fmt.Sprintf("%d+1", digit), fmt.Sprint(digit+1),
				fmt.Sprintf("3-%d", digit), fmt.Sprint(3-digit), fmt.Sprintf("norm%d-1", digit+1), fmt.Sprintf("norm%d", digit)).Replace(theirs)
		}
		return theirs
	}
	t.Fatalf("detectron2 has no name for %q", name)
	return ""
}

// asDetectron2 renames a checkpoint's tensors as detectron2 has them: queries, keys and
// values of an attention are projected by one matrix.
func asDetectron2(t *testing.T, arch string, tensors []quantize.Tensor) (theirs []quantize.Tensor) {
	t.Helper()
	whole := map[string]int{} // where in theirs
	parts := strings.NewReplacer(".q_proj.", ".in_proj_", ".k_proj.", ".in_proj_", ".v_proj.", ".in_proj_",
		"attention.self.query.", "attn_qkv_", "attention.self.key.", "attn_qkv_", "attention.self.value.", "attn_qkv_",
		// In transformers' MaskFormer, what a Swin Transformer consists of has names of its own.
		"encoder.model.", "encoder.", "norms.0.", "norms.stage1.", "norms.1.", "norms.stage2.", "norms.2.", "norms.stage3.", "norms.3.", "norms.stage4.")
	thirds := []string{".q_proj.", ".k_proj.", ".v_proj.", ".self.query.", ".self.key.", ".self.value."}
	for _, order := range append(thirds, "") {
		for _, x := range tensors {
			split := slices.ContainsFunc(thirds, func(third string) bool { return strings.Contains(x.Name, third) })
			if strings.Contains(x.Name, ".layernorm.") && strings.HasPrefix(x.Name, imageLevel) {
				continue // that classifier's
			}
			if split != (order != "") || !strings.Contains(x.Name, order) {
				continue
			}
			name := theirName(t, arch, parts.Replace(x.Name))
			if i, ok := whole[name]; ok {
				theirs[i].Shape[0] += x.Shape[0]
				theirs[i].Data = append(theirs[i].Data, x.Data...)
				continue
			}
			whole[name] = len(theirs)
			theirs = append(theirs, quantize.Tensor{Name: name, Shape: slices.Clone(x.Shape), Data: slices.Clone(x.Data)})
		}
	}
	return theirs
}

// detectron2 returns a fixture's checkpoint in detectron2's layout, and what the same
// weights become from transformers' layout.
func detectron2(t *testing.T, arch string) (labels []string, settings []byte, theirs []quantize.Tensor, want *quantize.Source) {
	t.Helper()
	config, tensors, others := checkpoint(t, arch)
	want, _, err := Convert(config, nil, tensors, others)
	if err != nil {
		t.Fatal(err)
	}
	c, err := readConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	labels, err = c.labels()
	if err != nil {
		t.Fatal(err)
	}
	if strings.HasPrefix(arch, "maskformer") {
		settings = fmt.Appendf(nil, `{"heads": 4, "stride_in_1x1": %t}`, arch == "maskformer")
	}
	return labels, settings, asDetectron2(t, arch, tensors), want
}

func sameSource(t *testing.T, got, want *quantize.Source) {
	t.Helper()
	var a, b any
	if json.Unmarshal(got.Config, &a) != nil || json.Unmarshal(want.Config, &b) != nil || !reflect.DeepEqual(a, b) {
		t.Errorf("the configuration is %s, want %s", got.Config, want.Config)
	}
	tensors := func(s *quantize.Source) map[string]quantize.Tensor {
		all := map[string]quantize.Tensor{}
		for _, x := range s.Tensors {
			all[x.Name] = x
		}
		return all
	}
	if got.Arch != want.Arch || !reflect.DeepEqual(tensors(got), tensors(want)) {
		t.Error("the tensors are not those of the other layout")
	}
}

// The same weights give the same network, to the last bit, from either library's layout.
func TestDetectron2(t *testing.T) {
	for _, arch := range checkpointtest.Bases(t, "../../model/testdata") {
		labels, settings, theirs, want := detectron2(t, arch)
		got, report, err := ConvertDetectron2(Beside{Names: labels, Settings: settings}, theirs, []string{"backbone.stem.conv1.norm.num_batches_tracked"})
		if err != nil {
			t.Fatal(err)
		}
		sameSource(t, got, want)
		if len(report.Used)+len(report.Unused) != len(theirs)+1 || len(report.Missing) > 0 {
			t.Errorf("%s: %d used, %d unused and %d missing of %d", arch, len(report.Used), len(report.Unused), len(report.Missing), len(theirs)+1)
		}
		for _, unused := range report.Unused {
			if !Ignored(unused) {
				t.Errorf("%s: nothing takes %q", arch, unused)
			}
		}

		// Older versions of both had other names.
		older := slices.Clone(theirs)
		for i, x := range older {
			x.Name = strings.NewReplacer("sem_seg_head.pixel_decoder.", "sem_seg_head.", "predictor.query_feat", "predictor.static_query").Replace(x.Name)
			older[i] = x
		}
		if got, _, err = ConvertDetectron2(Beside{Names: labels, Settings: settings}, older, nil); err != nil {
			t.Fatal(err)
		}
		sameSource(t, got, want)

		// What is used is needed, and told by its name there.
		for i, x := range theirs {
			if Ignored(x.Name) {
				continue
			}
			_, report, err := ConvertDetectron2(Beside{Names: labels, Settings: settings}, slices.Delete(slices.Clone(theirs), i, i+1), nil)
			if err == nil || len(report.Missing) > 0 && !slices.Equal(report.Missing, []string{x.Name}) {
				t.Errorf("%s without %q: missing %v, %v", arch, x.Name, report.Missing, err)
			}
		}
	}
}

// Names as they stand in the libraries' own files.
func TestDetectron2Names(t *testing.T) {
	for arch, names := range map[string][]string{
		"mask2former": {"backbone.res3.0.shortcut.norm.running_var", "backbone.res2.1.conv3.weight", "sem_seg_head.pixel_decoder.transformer.encoder.layers.1.self_attn.sampling_offsets.bias",
			"sem_seg_head.pixel_decoder.adapter_1.norm.weight", "sem_seg_head.predictor.transformer_self_attention_layers.3.self_attn.in_proj_weight",
			"sem_seg_head.predictor.transformer_cross_attention_layers.0.multihead_attn.out_proj.bias", "sem_seg_head.predictor.transformer_ffn_layers.2.norm.weight",
			"sem_seg_head.predictor.query_feat.weight", "sem_seg_head.predictor.level_embed.weight", "sem_seg_head.predictor.mask_embed.layers.2.bias"},
		"maskformer": {"backbone.stem.conv1.norm.running_mean", "sem_seg_head.pixel_decoder.layer_4.weight", "sem_seg_head.pixel_decoder.adapter_3.norm.bias", "sem_seg_head.predictor.input_proj.weight",
			"sem_seg_head.predictor.transformer.decoder.layers.2.multihead_attn.in_proj_bias", "sem_seg_head.predictor.transformer.decoder.norm.weight", "sem_seg_head.predictor.class_embed.bias"},
		"mask2former-swin": {"backbone.patch_embed.proj.weight", "backbone.patch_embed.norm.bias", "backbone.layers.2.blocks.1.norm1.weight", "backbone.layers.2.blocks.1.attn.qkv.bias",
			"backbone.layers.0.blocks.0.attn.relative_position_bias_table", "backbone.layers.0.blocks.1.attn.proj.weight", "backbone.layers.3.blocks.0.mlp.fc2.weight",
			"backbone.layers.1.downsample.reduction.weight", "backbone.layers.0.downsample.norm.bias", "backbone.norm0.weight", "backbone.norm3.bias"},
	} {
		labels, settings, theirs, _ := detectron2(t, arch)
		_, report, err := ConvertDetectron2(Beside{Names: labels, Settings: settings}, theirs, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, name := range names {
			if !slices.Contains(report.Used, name) {
				t.Errorf("%s: %q is not used", arch, name)
			}
		}
	}
}

func TestDetectron2Refuses(t *testing.T) {
	labels, settings, theirs, _ := detectron2(t, "maskformer")
	without := func(part string) []quantize.Tensor {
		return slices.DeleteFunc(slices.Clone(theirs), func(x quantize.Tensor) bool { return strings.Contains(x.Name, part) })
	}
	with := func(name string) []quantize.Tensor { return append(slices.Clone(theirs), tensor(name, []int{1}, 0)) }
	for _, c := range []struct {
		labels   []string
		settings string
		tensors  []quantize.Tensor
		want     string
	}{
		{labels[1:], string(settings), theirs, "11 classes and its .txt has 10"},
		{append([]string{""}, labels[1:]...), string(settings), theirs, "line 1"},
		{labels, `{"head": 4}`, theirs, "head"},
		{labels, `[]`, theirs, ".json"},
		{labels, string(settings), without("predictor."), "neither"},
		{labels, string(settings), without("backbone."), "neither a ResNet"},
		{labels, string(settings), with("backbone.absolute_pos_embed"), "absolute"},
		{labels, string(settings), with("backbone.stem.conv2.weight"), "res5_multi_grid"},
		{labels, `{"heads": 4, "res5_multi_grid": [1]}`, with("backbone.stem.conv2.weight"), "stem.conv3"},
		{labels, string(settings), with("sem_seg_head.predictor.transformer.encoder.layers.0.linear1.weight"), "encoder"},
		{labels, string(settings), with(theirs[0].Name), "two of the files"},
	} {
		if _, _, err := ConvertDetectron2(Beside{Names: c.labels, Settings: []byte(c.settings)}, c.tensors, nil); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("got %v, want an error with %q", err, c.want)
		}
	}
	const far = "backbone.res2.2000000000.conv1.weight"
	_, report, err := ConvertDetectron2(Beside{Names: labels, Settings: settings}, with(far), nil)
	if err != nil || !slices.Contains(report.Unused, far) {
		t.Errorf("a block that is far too many: unused %v, %v", report.Unused, err)
	}
	for i, x := range theirs {
		if !strings.HasSuffix(x.Name, "in_proj_bias") {
			continue
		}
		short := slices.Clone(theirs)
		short[i] = tensor(x.Name, []int{7}, make([]float32, 7)...)
		if _, _, err := ConvertDetectron2(Beside{Names: labels, Settings: settings}, short, nil); err == nil || !strings.Contains(err.Error(), "shape") {
			t.Errorf("a short %s: %v", x.Name, err)
		}
	}
}

// A file, or the folder in which it is alone, with names and settings beside it.
func TestReadDetectron2(t *testing.T) {
	labels, settings, theirs, want := detectron2(t, "maskformer")
	dir := t.TempDir()
	path := filepath.Join(dir, "model_final.pkl")
	write := func(name string, data []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o666); err != nil {
			t.Fatal(err)
		}
	}
	write("model_final.pkl", file(theirs))
	if _, _, err := Read(path); err == nil || !strings.Contains(err.Error(), "model_final.txt") {
		t.Errorf("without names: %v", err)
	}
	numbered := "0:invalid_class_id"
	for i, label := range labels {
		numbered += fmt.Sprintf("\r\n%d:%s", i+1, label)
	}
	write("model_final.txt", []byte(numbered+"\n"))
	write("model_final.json", settings)
	for _, at := range []string{path, dir} {
		if at == dir {
			write("model_final.txt", []byte(strings.Join(labels, "\n")))
		}
		if !Is(at) {
			t.Fatalf("%s is not seen", at)
		}
		got, _, err := Read(at)
		if err != nil {
			t.Fatal(err)
		}
		sameSource(t, got, want)
	}
	write("other.pth", nil)
	if Is(dir) {
		t.Error("a folder of two checkpoints is taken for one")
	}
	write("model_final.pkl", file(theirs)[:5000])
	if _, _, err := Read(path); err == nil || !strings.Contains(err.Error(), "model_final.pkl") {
		t.Errorf("a truncated file: %v", err)
	}
}
