BB0:
	s_mov_b32 s0, s3                                            ; be800303
	s_movk_i32 s1, 0x8000                                       ; b0018000
	s_movk_i32 s3, 0x8000                                       ; b0038000
	s_load_dwordx4 s[4:7], s[2:3], null                         ; f4080101 fa000000
	v_mov_b32_e32 v1, 0                                         ; 7e020280
	s_waitcnt lgkmcnt(0)                                        ; bf8cc07f
	s_buffer_load_dword s8, s[4:7], 0xc                         ; f4200202 fa00000c
	s_mov_b32 s9, 0                                             ; be890380
BB1:
	s_cmp_ge_u32 s9, s8                                         ; bf090809
	s_cbranch_scc1 BB14                                         ; bf850030
BB2:
	s_load_dwordx8 s[16:23], s[0:1], null                       ; f40c0400 fa000000
	v_lshl_add_u32 v2, s9, 8, v0                                ; d7460002 04011009
	s_waitcnt lgkmcnt(0)                                        ; bf8cc07f
	buffer_load_dword v20, v2, s[4:7], 0 offen                  ; e0301000 80011402
	s_cmp_eq_i32 s10, 1                                         ; bf00810a
	s_cbranch_scc0 BB4                                          ; bf840006
BB3:
	buffer_load_dwordx4 v[4:7], v2, s[20:23], 0 offen           ; e0381000 80050402
	buffer_load_dwordx4 v[8:11], v2, s[20:23], 0 offen offset:4080 ; e0381ff0 80050802
BB4:
	s_cmp_eq_i32 s10, 0                                         ; bf00800a
	s_cbranch_scc0 BB6                                          ; bf840006
BB5:
	buffer_load_dwordx4 v[4:7], v2, s[16:19], 0 offen           ; e0381000 80040402
	buffer_load_dwordx4 v[8:11], v2, s[16:19], 0 offen offset:4080 ; e0381ff0 80040802
BB6:
	s_waitcnt vmcnt(1)                                          ; bf8c3f71
	v_max_u32_e32 v12, v4, v5                                   ; 2818050b
	s_waitcnt vmcnt(0)                                          ; bf8c3f70
	v_max3_u32 v12, v12, v8, v9                                 ; d556000c 0426110c
	s_mov_b64 s[24:25], exec                                    ; be98047e
	v_cmpx_lt_u32_e32 0x7f7fffff, v12                           ; 7da218ff 7f7fffff
	s_cbranch_execz BB8                                         ; bf880003
BB7:
	v_mov_b32_e32 v13, 1                                        ; 7e1a0281
	ds_add_u32 v13, v13                                         ; d8000000 00000d0d
BB8:
	s_mov_b64 exec, s[24:25]                                    ; befe0418
	s_cmpk_ge_u32 s11, 0x1000                                   ; b68b1000
	s_cbranch_scc0 BB10                                         ; bf840003
BB9:
	v_mul_u32_u24_e32 v14, v4, v4                               ; 161c0904
	v_mad_u32_u24 v14, v5, v5, v14                              ; d543000e 043a0b05
BB10:
	v_cmp_ne_u32_e32 vcc, 0, v12                                ; 7d8a1880
	s_and_saveexec_b64 s[24:25], vcc                            ; be98246a
	s_cbranch_execz BB12                                        ; bf880003
BB11:
	v_add_nc_u32_e32 v1, v1, v14                                ; 4a021d01
	v_add_nc_u32_e32 v1, v1, v12                                ; 4a021901
BB12:
	s_andn2_b64 exec, s[24:25], exec                            ; 8afe7e18
	s_cbranch_execz BB13                                        ; bf880001
BB15:
	v_mov_b32_e32 v1, 0                                         ; 7e020280
BB13:
	s_mov_b64 exec, s[24:25]                                    ; befe0418
	s_add_u32 s9, s9, 1                                         ; 80098109
	s_branch BB1                                                ; bf82ffcc
BB14:
	v_mov_b32_e32 v2, 0                                         ; 7e040280
	s_cmpk_ge_u32 s11, 0x1000                                   ; b68b1000
	s_cbranch_scc0 BB16                                         ; bf840002
BB17:
	v_mov_b32_e32 v3, 0                                         ; 7e060280
BB16:
	s_endpgm                                                    ; bf810000
