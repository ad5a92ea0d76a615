from experiments.harness import main

raise SystemExit(main())
