BEGIN TRANSACTION;
CREATE TABLE finesweep_artifacts (
	sweep_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	kind TEXT NOT NULL, 
	path TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	removed_at DOUBLE, 
	PRIMARY KEY (sweep_id, number, attempt, kind), 
	FOREIGN KEY(sweep_id, number) REFERENCES finesweep_trials (sweep_id, number) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "finesweep_artifacts" VALUES(1,0,1,'best','trial-0000/best-200',1700000015.25,NULL);
INSERT INTO "finesweep_artifacts" VALUES(1,0,1,'checkpoint','trial-0000/checkpoint',1700000015.25,NULL);
INSERT INTO "finesweep_artifacts" VALUES(1,2,1,'checkpoint','trial-0002/checkpoint',1700000027.25,1700000039.25);
CREATE TABLE finesweep_attempts (
	sweep_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	attempt INTEGER NOT NULL, 
	ending TEXT, 
	reason TEXT, 
	traceback TEXT, 
	started_at DOUBLE NOT NULL, 
	ended_at DOUBLE, 
	facts TEXT NOT NULL, 
	PRIMARY KEY (sweep_id, number, attempt), 
	FOREIGN KEY(sweep_id, number) REFERENCES finesweep_trials (sweep_id, number) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "finesweep_attempts" VALUES(1,0,1,'done',NULL,NULL,1700000007.75,1700000015.25,'{"device":"cpu","n_trainable":1234,"n_parameters":99999}');
INSERT INTO "finesweep_attempts" VALUES(1,1,1,'stopped',NULL,NULL,1700000018.25,1700000021.25,'{}');
INSERT INTO "finesweep_attempts" VALUES(1,2,1,'lost','its worker died',NULL,1700000024.25,1700000027.25,'{}');
INSERT INTO "finesweep_attempts" VALUES(1,2,2,'failed','ValueError: boom','Traceback
  ünï',1700000028.75,1700000030.25,'{}');
INSERT INTO "finesweep_attempts" VALUES(1,4,1,NULL,NULL,NULL,1700000034.75,NULL,'{}');
CREATE TABLE finesweep_reports (
	sweep_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	step BIGINT NOT NULL, 
	attempt INTEGER NOT NULL, 
	examples_seen BIGINT NOT NULL, 
	final BOOLEAN NOT NULL, 
	decision TEXT NOT NULL, 
	metrics TEXT NOT NULL, 
	reported_at DOUBLE NOT NULL, 
	PRIMARY KEY (sweep_id, number, step), 
	FOREIGN KEY(sweep_id, number) REFERENCES finesweep_trials (sweep_id, number) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "finesweep_reports" VALUES(1,0,100,1,104,0,'continue','{"accuracy":0.5,"loss":0.3333333333333333}',1700000010.75);
INSERT INTO "finesweep_reports" VALUES(1,0,200,1,204,0,'continue','{"accuracy":0.75,"loss":0.3333333333333333}',1700000012.25);
INSERT INTO "finesweep_reports" VALUES(1,0,300,1,304,1,'continue','{"accuracy":0.7,"loss":0.3333333333333333}',1700000013.75);
INSERT INTO "finesweep_reports" VALUES(1,1,100,1,104,0,'stop','{"accuracy":"nan","loss":"inf"}',1700000019.75);
INSERT INTO "finesweep_reports" VALUES(1,2,100,1,104,0,'continue','{"accuracy":0.6,"loss":0.3333333333333333}',1700000025.75);
INSERT INTO "finesweep_reports" VALUES(1,4,100,1,104,0,'continue','{"accuracy":0.55,"loss":0.3333333333333333}',1700000036.25);
CREATE TABLE finesweep_sweeps (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	name TEXT NOT NULL, 
	spec TEXT NOT NULL, 
	provenance TEXT NOT NULL, 
	grid TEXT NOT NULL, 
	state TEXT NOT NULL, 
	created_at DOUBLE NOT NULL, 
	budget_trials INTEGER NOT NULL, 
	seconds_used DOUBLE NOT NULL, 
	study_attributes TEXT NOT NULL, 
	stop_requested_at DOUBLE, 
	holder_host TEXT, 
	holder_pid BIGINT, 
	holder_started BIGINT, 
	held_since DOUBLE, 
	expires_at DOUBLE, 
	epoch BIGINT NOT NULL, 
	UNIQUE (name)
);
INSERT INTO "finesweep_sweeps" VALUES(1,'tickets','{"name":"tickets","study":{"objective":{"metric":"accuracy","direction":"maximize","value":"best"},"sampler":{"type":"tpe","seed":0,"startup_trials":10},"pruner":{"type":"none","compare_at":"examples"},"parameters":{"learning_rate":{"type":"float","low":1e-06,"high":0.001,"log":true,"step":null,"when":null},"batch_size":{"type":"categorical","choices":[8,16,32],"when":null}}},"trainer":"transformers","code_dir":null,"model":{"name":"tiny","revision":null,"dtype":"float32","attention":null,"quantize":null,"trust_remote_code":false,"allow_pickle":false},"task":"classification","data":{"dataset":null,"config":null,"revision":null,"train":"/data/train.jsonl","validation":"/data/validation.jsonl","test":null,"format":"prompt-completion","text":"text","text_pair":null,"label":"label","prompt":"prompt","completion":"completion","messages":"messages","max_length":128,"max_train_rows":null,"max_validation_rows":null,"incomplete":"refuse","seed":0},"training":{"method":"full","unfrozen_layers":0,"pooling":"model","lora_rank":8,"lora_alpha":8.0,"lora_dropout":0.0,"lora_target_modules":"all-linear","learning_rate":5e-05,"batch_size":8,"epochs":3.0,"warmup_steps":0,"warmup_ratio":null,"weight_decay":0.0,"early_stopping_patience":null,"early_stopping_min_delta":0.0,"divergence_factor":5.0,"device_batch_size":null,"seed":0,"eval_every":null,"checkpoint_minutes":1.0,"report_to":[]},"evaluation":{"metrics":{},"generation":null},"start_with":[],"try_defaults":true,"budget":{"trials":6,"hours":null,"at_end":"finish","retries":2,"retry_on":["lost"],"stall_minutes":null,"stop_after_failures":5},"resources":{"devices":"auto","gpus_per_trial":1.0,"cpus_per_trial":null,"max_parallel":null,"feature_cache_gib":20.0,"stack":16,"address":null},"artifacts":{"folder":null,"keep":"best"},"results":null}','{"artifact_dir":"/runs/artifacts/tickets","host":"näin ''quoted''"}','{"unit":"examples","every":100,"longest":300}','RUNNING',1700000001.75,6,12.5,'{"seen":5}',NULL,'a-host-long-gone',4711,99,1700000004.75,1700000064.75,1);
INSERT INTO "finesweep_sweeps" VALUES(2,'waiting','{"name":"waiting","study":{"objective":{"metric":"accuracy","direction":"maximize","value":"best"},"sampler":{"type":"tpe","seed":0,"startup_trials":10},"pruner":{"type":"none","compare_at":"examples"},"parameters":{"learning_rate":{"type":"float","low":1e-06,"high":0.001,"log":true,"step":null,"when":null},"batch_size":{"type":"categorical","choices":[8,16,32],"when":null}}},"trainer":"transformers","code_dir":null,"model":{"name":"tiny","revision":null,"dtype":"float32","attention":null,"quantize":null,"trust_remote_code":false,"allow_pickle":false},"task":"classification","data":{"dataset":null,"config":null,"revision":null,"train":"/data/train.jsonl","validation":"/data/validation.jsonl","test":null,"format":"prompt-completion","text":"text","text_pair":null,"label":"label","prompt":"prompt","completion":"completion","messages":"messages","max_length":128,"max_train_rows":null,"max_validation_rows":null,"incomplete":"refuse","seed":0},"training":{"method":"full","unfrozen_layers":0,"pooling":"model","lora_rank":8,"lora_alpha":8.0,"lora_dropout":0.0,"lora_target_modules":"all-linear","learning_rate":5e-05,"batch_size":8,"epochs":3.0,"warmup_steps":0,"warmup_ratio":null,"weight_decay":0.0,"early_stopping_patience":null,"early_stopping_min_delta":0.0,"divergence_factor":5.0,"device_batch_size":null,"seed":0,"eval_every":null,"checkpoint_minutes":1.0,"report_to":[]},"evaluation":{"metrics":{},"generation":null},"start_with":[],"try_defaults":true,"budget":{"trials":6,"hours":null,"at_end":"finish","retries":2,"retry_on":["lost"],"stall_minutes":null,"stop_after_failures":5},"resources":{"devices":"auto","gpus_per_trial":1.0,"cpus_per_trial":null,"max_parallel":null,"feature_cache_gib":20.0,"stack":16,"address":null},"artifacts":{"folder":null,"keep":"best"},"results":null}','{}','{"unit":"examples","every":100,"longest":300}','NEW',1700000003.25,6,0.0,'{}',1700000040.75,NULL,NULL,NULL,NULL,NULL,0);
CREATE TABLE finesweep_trials (
	sweep_id INTEGER NOT NULL, 
	number INTEGER NOT NULL, 
	state TEXT NOT NULL, 
	reason TEXT, 
	value DOUBLE, 
	value_step BIGINT, 
	source TEXT NOT NULL, 
	configuration TEXT NOT NULL, 
	parameters TEXT NOT NULL, 
	distributions TEXT NOT NULL, 
	attributes TEXT NOT NULL, 
	twin_of INTEGER, 
	reused_from INTEGER, 
	started_at DOUBLE, 
	finished_at DOUBLE, 
	facts TEXT NOT NULL, 
	examples_seen BIGINT NOT NULL, 
	PRIMARY KEY (sweep_id, number), 
	FOREIGN KEY(sweep_id) REFERENCES finesweep_sweeps (id) ON DELETE CASCADE
)
 WITHOUT ROWID

;
INSERT INTO "finesweep_trials" VALUES(1,0,'COMPLETE',NULL,0.75,200,'sampler','{"learning_rate":3.2e-05,"batch_size":16}','{"learning_rate":3.2e-05,"batch_size":16}','{"learning_rate":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 1e-06, \"high\": 0.001, \"log\": true}}","batch_size":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [8, 16, 32]}}"}','{"sampler:state":[0,{"$number":"inf"}],"rung:100":0.5,"rung:200":0.75,"rung:300":0.7,"done":1}',NULL,NULL,1700000007.75,1700000015.25,'{"device":"cpu","n_trainable":1234,"n_parameters":99999}',304);
INSERT INTO "finesweep_trials" VALUES(1,1,'PRUNED','diverged at step 100',NULL,NULL,'sampler','{"learning_rate":0.0001,"batch_size":8}','{"learning_rate":0.0001,"batch_size":8}','{"learning_rate":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 1e-06, \"high\": 0.001, \"log\": true}}","batch_size":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [8, 16, 32]}}"}','{"sampler:state":[1,{"$number":"inf"}]}',NULL,NULL,1700000018.25,1700000019.75,'{}',104);
INSERT INTO "finesweep_trials" VALUES(1,2,'FAILED','ValueError: boom',NULL,NULL,'sampler','{"learning_rate":0.0002,"batch_size":32}','{"learning_rate":0.0002,"batch_size":32}','{"learning_rate":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 1e-06, \"high\": 0.001, \"log\": true}}","batch_size":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [8, 16, 32]}}"}','{"sampler:state":[2,{"$number":"inf"}],"rung:100":0.6}',NULL,NULL,1700000024.25,1700000030.25,'{}',104);
INSERT INTO "finesweep_trials" VALUES(1,3,'COMPLETE',NULL,0.75,200,'sampler','{"learning_rate":3.2e-05,"batch_size":16}','{"learning_rate":3.2e-05,"batch_size":16}','{"learning_rate":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 1e-06, \"high\": 0.001, \"log\": true}}","batch_size":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [8, 16, 32]}}"}','{"sampler:state":[3,{"$number":"inf"}]}',0,0,NULL,1700000031.75,'{}',0);
INSERT INTO "finesweep_trials" VALUES(1,4,'RUNNING',NULL,NULL,NULL,'sampler','{"learning_rate":5e-05,"batch_size":8}','{"learning_rate":5e-05,"batch_size":8}','{"learning_rate":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 1e-06, \"high\": 0.001, \"log\": true}}","batch_size":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [8, 16, 32]}}"}','{"sampler:state":[4,{"$number":"inf"}],"rung:100":0.55}',NULL,NULL,1700000034.75,NULL,'{}',104);
INSERT INTO "finesweep_trials" VALUES(1,5,'WAITING',NULL,NULL,NULL,'sampler','{"learning_rate":6e-05,"batch_size":8}','{"learning_rate":6e-05,"batch_size":8}','{"learning_rate":"{\"name\": \"FloatDistribution\", \"attributes\": {\"step\": null, \"low\": 1e-06, \"high\": 0.001, \"log\": true}}","batch_size":"{\"name\": \"CategoricalDistribution\", \"attributes\": {\"choices\": [8, 16, 32]}}"}','{"sampler:state":[5,{"$number":"inf"}]}',NULL,NULL,NULL,NULL,'{}',0);
CREATE TABLE finesweep_version (
	version INTEGER NOT NULL, 
	PRIMARY KEY (version)
);
INSERT INTO "finesweep_version" VALUES(1);
CREATE INDEX finesweep_trials_by_value ON finesweep_trials (sweep_id, state, value);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('finesweep_sweeps',2);
COMMIT;
