from experiments.harness.command import main

raise SystemExit(main())
